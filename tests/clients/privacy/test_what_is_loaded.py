import subprocess
import sys

PROGRAM = """
import logging
import sys
import clients.privacy.fleet
import clients.privacy.hospital
print("opacus" in sys.modules, logging.getLogger().handlers, logging.getLogger().level == logging.WARNING)
"""


def test_private_training_loads_no_opacus_and_leaves_messages_of_others_as_they_were():
    """Opacus sets up the root logger where nobody has, and every refusal of an attacked client went to stderr."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "False [] True\n"
