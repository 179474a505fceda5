"""The terms of sums of more than a hundred hospitals: a ring that tolerates as many as are stated, and no more."""

import pytest

from protocols.entropy import system_entropy
from protocols.parameters import ring_quorum
from protocols.roster import IdentityKey, Roster
from securefed.channels import fixed_point_codec
from securefed.config import config_from_mapping
from securefed.sum_terms import SumTerms


@pytest.mark.parametrize(("hospitals", "configured", "corrupt"), [(104, -1, 20), (101, -1, 20), (118, 23, 23)])
def test_a_ring_tolerates_the_number_of_colluders_that_is_configured(hospitals, configured, corrupt):
    """20 of 104 is no decimal fraction: the share that was made of it came back as 21."""
    roster = Roster.of({f"h{number:03d}": IdentityKey.generate(system_entropy) for number in range(hospitals)})
    config = config_from_mapping({"secure_aggregation": {"corrupt": configured}})
    terms = SumTerms(config, roster, 16, 3)
    stated = terms.parameters(fixed_point_codec([1], 1.0, 16), 1)
    assert not stated.is_complete
    assert stated.corrupt == corrupt
    assert stated.min_survivors >= ring_quorum(hospitals, corrupt)
