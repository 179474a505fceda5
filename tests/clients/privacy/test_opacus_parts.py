import subprocess
import sys

PROGRAM = """
import logging
import clients.privacy.clipping
import clients.privacy.samplers
import opacus.utils.module_utils
print(logging.getLogger().handlers, logging.getLogger().level == logging.WARNING)
"""


def test_messages_of_others_stay_as_they_were_when_opacus_is_loaded():
    """It sets up the root logger where nobody has, and every refusal of an attacked client went to stderr."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"
