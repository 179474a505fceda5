"""Flower's SecAgg+ as it is installed: its server workflow and its client mod, joined by a grid in memory."""

import copy
import os
import time
from io import BytesIO
from types import SimpleNamespace

import flwr
import numpy as np
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow, WorkflowState
from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.run_id = TaskIdentity.task_id = 1
TaskIdentity.node_id = 0
VERSION = flwr.__version__
MODULUS = 1 << 32


class Strategy:
    """Asks every client to train and keeps the mean that comes back."""

    def __init__(self, proxies, parameters):
        self.proxies, self.parameters, self.mean = proxies, parameters, None

    def configure_fit(self, *_):
        return [(proxy, FitIns(self.parameters, {})) for proxy in self.proxies]

    def aggregate_fit(self, _, results, __):
        self.mean = results[0][1].parameters
        return None, {}


class Grid:
    """Hands each message to its client at once; clients in `lost` do not answer from the masked vectors on."""

    def __init__(self, contexts, update, lost):
        self.contexts, self.update, self.lost, self.stage = contexts, update, lost, 0
        self.uploaded = 0

    def send_and_receive(self, messages, *, timeout=None):
        del timeout
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            if self.stage < 2 or node not in self.lost:
                replies.append(secaggplus_mod(copy.deepcopy(message), self.contexts[node], self.train))
        self.stage += 1
        return replies

    def train(self, _message, _context):
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.update]), 1000, {})
        content = compat.fitres_to_recorddict(result, False)
        return SimpleNamespace(content=content)


def run(clients, num_shares, threshold, lost, length, seed=0):
    """Run one round; return {stage: (wall seconds, processor seconds)} and the mean."""
    update = np.random.default_rng(seed).uniform(-0.5, 0.5, length).astype(np.float32)
    contexts = {node: Context(1, node, {}, RecordDict(), {}) for node in range(1, clients + 1)}
    proxies = [SimpleNamespace(node_id=node) for node in contexts]
    strategy = Strategy(proxies, ndarrays_to_parameters([np.zeros(1, dtype=np.float32)]))
    state = RecordDict()
    state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({"current_round": 1})
    state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(strategy.parameters, True)
    manager = SimpleNamespace(num_available=lambda: clients)
    context = LegacyContext(Context(1, 0, {}, state, {}), strategy=strategy, client_manager=manager)
    workflow, progress = SecAggPlusWorkflow(num_shares, threshold), WorkflowState()
    grid = Grid(contexts, update, set(range(1, lost + 1)))
    figures, server = {}, {}
    original = grid.send_and_receive

    def timed(messages, *, timeout=None):
        wall, cpu = time.perf_counter(), time.process_time()
        replies = original(messages, timeout=timeout)
        server["clients"] = (time.perf_counter() - wall, time.process_time() - cpu)
        return replies

    grid.send_and_receive = timed
    for name in ("setup_stage", "share_keys_stage", "collect_masked_vectors_stage", "unmask_stage"):
        wall, cpu = time.perf_counter(), time.process_time()
        if not getattr(workflow, name)(grid, context, progress):
            raise RuntimeError(f"Flower halted at {name}")
        spent = time.perf_counter() - wall, time.process_time() - cpu
        figures[name] = spent
        figures[f"{name}/server"] = tuple(a - b for a, b in zip(spent, server["clients"], strict=True))
    mean = np.load(BytesIO(strategy.mean.tensors[0]))
    if np.abs(mean - update).max() > 1e-4:
        raise RuntimeError("Flower's mean is wrong")
    return figures


def masking(neighbours, length):
    """Return a function that does what a client does for its pads: agree, expand, add."""
    private, _ = generate_key_pairs()
    peers = [generate_key_pairs()[1] for _ in range(neighbours)]
    vector = [np.zeros(length, dtype=np.int64)]

    def run_once():
        total = parameters_addition(vector, pseudo_rand_gen(os.urandom(32), MODULUS, [(length,)]))
        for peer in peers:
            seed = generate_shared_key(private, peer)
            total = parameters_addition(total, pseudo_rand_gen(seed, MODULUS, [(length,)]))

    return run_once


def secrets():
    """Return the two secrets that a client shares out: a seed, and a private key in its encoding."""
    private, _ = generate_key_pairs()
    return os.urandom(32), private_key_to_bytes(private)


__all__ = ["VERSION", "combine_shares", "create_shares", "masking", "run", "secrets"]
