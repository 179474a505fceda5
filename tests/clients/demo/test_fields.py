import numpy as np
import pytest

from clients.demo import fields
from clients.demo.randomness import Stream


def test_coordinates_are_pixel_centres():
    x, y = fields.coordinates(4)
    assert x[0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert y[:, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    with pytest.raises(ValueError, match="read-only"):
        x += 1.0


def test_placed_turns_the_axes():
    u, v = fields.placed(8, 0.125, -0.125, (0.0, 1.0))
    row, column = 3, 4  # the pixel at (0.125, -0.125)
    assert (u[row, column], v[row, column]) == (0.0, 0.0)
    assert u[row + 1, column] > 0.0
    assert v[row, column + 1] < 0.0


@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_waves_is_the_cosine_of_a_multiple_of_the_angle(count):
    u, v = fields.placed(32, 0.1, 0.2)
    assert np.allclose(fields.waves(u, v, count), np.cos(count * np.arctan2(v, u)), atol=1e-3)


def test_within_and_bump():
    distance = np.array([[-1.0, -0.05, 0.0, 0.05, 1.0]], np.float32)
    inside = fields.within(distance, 0.1)
    assert inside[0].tolist() == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0], abs=1e-6)
    assert fields.bump(np.array([0.0, 1.0, 2.0], np.float32), 2.0).tolist() == pytest.approx([1.0, 0.5625, 0.0])


def test_stretch_goes_through_the_lattice():
    lattice = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    stretched = fields.stretch(lattice, 8)
    assert stretched.shape == (8, 8)
    assert stretched[0, 0] == 0.0
    assert stretched[4, 4] == pytest.approx(1.5)
    assert (np.diff(stretched, axis=0) >= 0.0).all()


def test_cloud_is_within_bounds_and_uses_them():
    field = fields.cloud(Stream("cloud"), 64, 8, 2)
    assert np.abs(field).max() <= 1.0
    assert field.std() > 0.15


def test_blurred_keeps_flat_fields_and_sums():
    assert (fields.blurred(np.full((6, 6), 0.25, np.float32), 3) == 0.25).all()
    spot = np.zeros((9, 9), np.float32)
    spot[4, 4] = 16.0
    smooth = fields.blurred(spot, 1)
    assert smooth[3:6, 3:6].tolist() == [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    assert smooth.sum() == 16.0


def test_curve_keeps_the_ends_and_bends_the_middle():
    values = np.array([0.0, 0.5, 1.0], np.float32)
    assert fields.curve(values, 0.0).tolist() == [0.0, 0.5, 1.0]
    brighter = fields.curve(values, 0.3)
    assert brighter[[0, 2]].tolist() == [0.0, 1.0]
    assert brighter[1] > 0.5 > fields.curve(values, -0.3)[1]


@pytest.mark.parametrize(("row", "column", "left"), [(4, 4, 9), (0, 0, 4), (8, 4, 6), (-2, 4, 0), (4, 20, 0)])
def test_stamp_cuts_off_what_lies_outside(row, column, left):
    field = np.zeros((9, 9), np.float32)
    fields.stamp(field, np.ones((3, 3), np.float32), row, column)
    assert field.sum() == left
