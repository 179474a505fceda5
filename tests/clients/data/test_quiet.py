"""Decoding in threads leaves the process as it was, and is quiet until the last thread is done."""

import io
import logging
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from clients.data import BrokenImageError, pixels
from clients.data.quiet import quiet_decoders


def png(size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_first_thread_to_begin_may_be_the_first_to_end(monkeypatch):
    logger = logging.getLogger("pydicom")
    before = (list(warnings.filters), logger.disabled)
    go = {name: threading.Event() for name in ("first.png", "second.png")}
    begun = threading.Semaphore(0)
    convert = pixels._to_rgb

    def held(image, path):
        begun.release()
        assert go[path].wait(20)
        return convert(image, path)

    monkeypatch.setattr(pixels, "_to_rgb", held)
    threads = {}
    for name in go:
        threads[name] = threading.Thread(target=pixels.decode_image, args=(png(), name))
        threads[name].start()
        assert begun.acquire(timeout=20)
    for name, thread in threads.items():
        assert logger.disabled
        assert warnings.filters[0][:3] == ("ignore", None, Warning)
        go[name].set()
        thread.join()
    assert (list(warnings.filters), logger.disabled) == before


def test_filters_and_logger_come_back_after_an_error():
    before = (list(warnings.filters), logging.getLogger("pydicom").disabled)
    with pytest.raises(KeyError), quiet_decoders(), quiet_decoders():
        raise KeyError
    assert (list(warnings.filters), logging.getLogger("pydicom").disabled) == before


@pytest.mark.filterwarnings("default")
def test_an_image_that_pillow_only_warns_of_is_refused_by_our_limit(recwarn):
    content = png((10_000, 9_500))  # between Pillow's limit and twice that
    assert 95e6 > Image.MAX_IMAGE_PIXELS > pixels.MAX_PIXELS
    for look in (pixels.decode_image, pixels.check_image):
        with pytest.raises(BrokenImageError, match="10000 x 9500 pixels are more than the limit of 80000000"):
            look(content, "x.png")
    assert not recwarn.list
    assert np.asarray(pixels.decode_image(png(), "x.png")).shape == (8, 8, 3)
