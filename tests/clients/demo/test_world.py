from collections import Counter

import numpy as np
import pytest

from clients.demo.findings import FINDINGS
from clients.demo.randomness import Stream
from clients.demo.world import SCENE_PIXELS, SUBJECTS, draw_scene, subject_of


def test_a_scene_is_determined_by_its_stream():
    first, second = draw_scene(Stream("w", 1), 0.5), draw_scene(Stream("w", 1), 0.5)
    assert (first[0] == second[0]).all()
    assert first[1] == second[1]
    assert first[0].shape == (SCENE_PIXELS, SCENE_PIXELS, 3)
    assert first[0].dtype == np.uint8


def test_sentences_name_every_subject_and_one_each():
    subjects = Counter(subject_of(draw_scene(Stream("w", index), 0.5)[1]).names[0] for index in range(400))
    assert set(subjects) == {subject.names[0] for subject in SUBJECTS}


def test_names_differ_between_subjects():
    names = [name for subject in SUBJECTS for name in subject.names]
    assert len(set(names)) == len(names)
    for subject in SUBJECTS:
        for name in subject.names:
            assert subject_of(f"a clear grey picture of a large bright {name} on a mottled background") is subject


@pytest.mark.parametrize("finding", FINDINGS)
def test_the_world_knows_the_words_of_the_findings(finding):
    assert any(finding.replace("_", " ") in subject.names for subject in SUBJECTS)


def test_tone_is_told_as_it_looks_also_in_a_negative():
    right = []
    for index in range(900):
        picture, sentence = draw_scene(Stream("tone", index), 0.5)
        solid = subject_of(sentence).names[0] in ("disc", "square", "cross", "crescent", "triangle")
        if solid and "smooth background" in sentence and ("bright" in sentence or "dark" in sentence):
            above = np.percentile(picture, 99.5) - np.median(picture)
            below = np.median(picture) - np.percentile(picture, 0.5)
            right.append(("bright" in sentence) == (above > below))
    assert len(right) >= 10
    assert np.mean(right) >= 0.8
