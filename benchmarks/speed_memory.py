"""Memory of a simulation and of the processes in which its hospitals train."""

import resource
from pathlib import Path

import numpy as np

from clients.method.crew import ModelArguments
from clients.method.hospital import Hospital, workbenches
from clients.method.settings import TrainingSettings
from clients.method.threads import usable_cores
from securefed.training_processes import start_crew, vector_length


def crew_memory(bundle):
    """MiB of the processes in which a long run's hospitals train as they start, and what they grow by until all have.

    Pages that several processes have are counted once.
    """
    settings, text, scale = TrainingSettings.default(), bundle.text_features, bundle.logit_scale
    benches = workbenches(text, scale, settings, "fedmedclip", "cpu")
    hospitals = {
        site.site: Hospital(site, text, scale, settings, "fedmedclip", 0, "cpu", benches) for site in bundle.sites
    }
    length = vector_length(bundle, settings, "fedmedclip")
    model = ModelArguments(text, scale, settings, "fedmedclip")
    crew = start_crew(max(2, usable_cores()), model, 0, hospitals, length)
    try:
        started = sum(proportional_memory(pid) for pid in crew.process_ids)
        for site, hospital in hospitals.items():
            crew.train_round(site, np.zeros(length, np.float32), hospital.private_tensors, 1)
        return started, sum(proportional_memory(pid) for pid in crew.process_ids) - started
    finally:
        crew.close()


def proportional_memory(pid):
    """MiB of a process, where pages that several processes have are divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def memory():
    """Largest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
