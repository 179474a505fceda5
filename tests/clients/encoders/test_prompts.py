"""Class names as sentences, and their average."""

import numpy as np
import pytest

from clients.encoders import EncodeOptions, UnknownClassError
from clients.encoders.prompts import average_prompts, class_prompts


def test_names_are_shown_as_words():
    prompts = class_prompts(("basal_cell-carcinoma", "x__y"), EncodeOptions())
    assert prompts == (("a picture of a basal cell carcinoma",), ("a picture of a x y",))


def test_several_templates_and_own_prompts():
    options = EncodeOptions(
        templates=("a {class}", "{class}, a {class}"), class_prompts={"dog": ("a scan of {class} as written",)}
    )
    assert class_prompts(("cat", "dog"), options) == (("a cat", "cat, a cat"), ("a scan of {class} as written",))


def test_prompts_of_no_class_are_refused():
    with pytest.raises(UnknownClassError, match="'fish'"):
        class_prompts(("cat",), EncodeOptions(class_prompts={"fish": ("x",)}))


@pytest.mark.parametrize(
    "fields",
    [
        {"templates": ()},
        {"templates": ("a picture",)},
        {"class_prompts": {"a": ()}},
        {"class_prompts": {"a": ("",)}},
        {"batch_size": -1},
        {"workers": -2},
        {"device": "tpu"},
        {"precision": "int8"},
    ],
)
def test_options_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        EncodeOptions(**fields)


def test_one_prompt_is_kept_and_several_are_averaged():
    one = np.array([[0.6, 0.8]], np.float32)
    two = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    rows = average_prompts([one, two])
    np.testing.assert_allclose(rows, [[0.6, 0.8], [2**-0.5, 2**-0.5]], atol=1e-7)
    assert rows.dtype == np.float32
