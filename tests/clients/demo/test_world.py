import numpy as np
import pytest

from clients.demo.findings import FINDINGS
from clients.demo.randomness import Stream
from clients.demo.world import SCENE_PIXELS, SUBJECTS, draw_scene


def test_a_scene_is_determined_by_its_stream():
    first, second = draw_scene(Stream("w", 1), 0.5), draw_scene(Stream("w", 1), 0.5)
    assert (first.picture == second.picture).all()
    assert first.facts == second.facts
    assert first.picture.shape == (SCENE_PIXELS, SCENE_PIXELS, 3)
    assert first.picture.dtype == np.uint8


def test_every_subject_occurs_and_is_named_in_the_facts():
    seen = set()
    for index in range(400):
        facts = draw_scene(Stream("w", index), 0.5).facts
        seen |= {subject.names[0] for subject in SUBJECTS if subject.names[0] in facts}
    assert seen == {subject.names[0] for subject in SUBJECTS}


def test_names_differ_between_subjects():
    names = [name for subject in SUBJECTS for name in subject.names]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("finding", FINDINGS)
def test_the_world_knows_the_words_of_the_findings(finding):
    assert any(finding.replace("_", " ") in subject.names for subject in SUBJECTS)
