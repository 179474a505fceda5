"""A20: the server wants colluders around the victim on a k-regular graph."""

from protocols.attacks.records import Attack, Finding, Outcome, broken, refused
from protocols.attacks.scene import Scene, read
from protocols.blocks import PositionedBlocks
from protocols.commitments import commit_to_nonce
from protocols.errors import ProtocolError
from protocols.graph import RingGraph, graph_seed, ring_order
from protocols.messages import (
    AdvertiseKeysReply,
    Advertisement,
    RevealNoncesReply,
    RevealNoncesRequest,
    ShareKeysReply,
    ShareKeysRequest,
)
from protocols.plan import plan
from protocols.policy import ClientPolicy
from protocols.secret_values import GraphNonce
from protocols.stages import Stage

CLIENTS, DEGREE, THRESHOLD = 24, 8, 6
COLLUDERS = frozenset(range(18, 24))
LARGE = 200
"""A cohort for which hospitals accept a ring, and whose failure probability leaves no room for a choice of orders."""
VICTIM = 0


def _scene() -> Scene:
    """A small ring; hospitals would refuse one of this size, so the policy is wide."""
    policy = ClientPolicy(min_corrupt=0, complete_up_to=2, min_sigma=None)
    choices = {"neighbours": DEGREE, "threshold": THRESHOLD, "corrupt": 6, "min_survivors": 20}
    return Scene(CLIENTS, policy=policy, choices=choices)


def show_colluders_as_neighbours() -> Finding:
    """Show the victim colluders in the place of its neighbours on the ring."""
    scene = _scene()
    scene.play(Stage.SHARE_KEYS)
    name = scene.names[VICTIM]
    original = read(ShareKeysRequest, scene.server.requests(Stage.SHARE_KEYS.value)[name])
    shown = {position: _advertised(scene, position) for position in (VICTIM, *sorted(COLLUDERS))}
    try:
        reply = scene.ask(name, Stage.SHARE_KEYS, ShareKeysRequest(shown, original.nonces))
    except ProtocolError as error:
        return refused(error, "colluders as the only neighbours")
    holders = read(ShareKeysReply, reply).shares.keys()
    return broken(f"the victim dealt its shares to {len(holders)} colluders and nobody else")


def choose_a_nonce_last() -> Finding:
    """Let a colluder choose its nonce after all others are known, so that colluders sit around the victim."""
    scene = _scene()
    scene.play(Stage.SHARE_KEYS)
    name = scene.names[VICTIM]
    original = read(ShareKeysRequest, scene.server.requests(Stage.SHARE_KEYS.value)[name])
    commitments, nonces = _commitments(scene), dict(original.nonces.items())
    best, chosen = -1, nonces
    for trial in range(2000):
        changed = {**nonces, max(COLLUDERS): trial.to_bytes(32, "little")}
        around = _colluders_around(scene, commitments, PositionedBlocks.of(changed))
        if around > best:
            best, chosen = around, changed
    return _offer(scene, commitments, chosen, f"the best of 2000 late nonces ({best} of {DEGREE} neighbours collude)")


def leave_nonces_out() -> Finding:
    """Pretend that one client revealed no nonce, choosing whom, so that colluders crowd around the victim."""
    chosen_plan = plan(LARGE, 0.2, 0.1)
    scene = Scene(LARGE, choices=chosen_plan.choices)
    scene.play(Stage.SHARE_KEYS)
    commitments, colluders = _commitments(scene), frozenset(range(LARGE - chosen_plan.corrupt, LARGE))
    nonces = {
        position: scene.sent(RevealNoncesReply, Stage.REVEAL_NONCES, name).nonce
        for position, name in enumerate(scene.names)
    }
    honest = _colluders_around(scene, commitments, PositionedBlocks.of(nonces), colluders)
    best, chosen = honest, nonces
    for left_out in nonces:
        kept = {position: nonce for position, nonce in nonces.items() if position != left_out}
        around = _colluders_around(scene, commitments, PositionedBlocks.of(kept), colluders)
        if around > best and left_out != VICTIM:
            best, chosen = around, kept
    degree = chosen_plan.neighbours
    tried = f"the best of {LARGE} orders: {best} of {degree} neighbours collude, {honest} without choosing"
    return _offer(scene, commitments, chosen, tried)


def _offer(scene: Scene, commitments: PositionedBlocks, nonces: dict[int, bytes], tried: str) -> Finding:
    """Send the victim the keys of those who are its neighbours under these nonces."""
    blocks = PositionedBlocks.of(nonces)
    neighbours = _graph(scene, commitments, blocks).neighbours(VICTIM)
    shown = {p: _advertised(scene, p) for p in sorted({VICTIM, *neighbours}) if p in nonces}
    try:
        scene.ask(scene.names[VICTIM], Stage.SHARE_KEYS, ShareKeysRequest(shown, blocks))
    except ProtocolError as error:
        return refused(error, tried)
    return broken(f"{tried}; the victim dealt its shares to them")


def reveal_after_another_list() -> Finding:
    """Show the victim another list of commitments than the others, to learn its nonce and then fix the list."""
    scene = _scene()
    scene.play(Stage.REVEAL_NONCES)
    name = scene.names[VICTIM]
    commitments = dict(
        read(RevealNoncesRequest, scene.server.requests(Stage.REVEAL_NONCES.value)[name]).commitments.items()
    )
    swapped = GraphNonce(bytes(32))
    other = commit_to_nonce(swapped, scene.server.session_id, max(COLLUDERS))
    shown = PositionedBlocks.of({**commitments, max(COLLUDERS): other})
    scene.ask(name, Stage.REVEAL_NONCES, RevealNoncesRequest(shown))
    late = GraphNonce((7).to_bytes(32, "little"))
    nonces = {
        position: nonce
        for position, nonce in enumerate(draws_of_nonces(scene))
        if commitments.get(position) == commit_to_nonce(GraphNonce(nonce), scene.server.session_id, position)
    }
    nonces[max(COLLUDERS)] = late.expose()
    return _offer(scene, shown, nonces, "another nonce than the one committed to before the victim revealed its own")


def draws_of_nonces(scene: Scene) -> list[bytes]:
    """Return each client's last draw of 32 bytes: its nonce."""
    return [[draw for draw in scene.taps[name].draws if len(draw) == 32][-1] for name in scene.names]


def _advertised(scene: Scene, position: int) -> Advertisement:
    return scene.sent(AdvertiseKeysReply, Stage.ADVERTISE_KEYS, scene.names[position]).advertisement


def _commitments(scene: Scene) -> PositionedBlocks:
    return scene.received(RevealNoncesRequest, Stage.REVEAL_NONCES, scene.names[VICTIM]).commitments


def _graph(scene: Scene, commitments: PositionedBlocks, nonces: PositionedBlocks) -> RingGraph:
    seed = graph_seed(scene.server.session_id, commitments.encode(), nonces.encode())
    return RingGraph(ring_order(seed, scene.parameters.clients), scene.parameters.neighbours)


def _colluders_around(
    scene: Scene, commitments: PositionedBlocks, nonces: PositionedBlocks, colluders: frozenset[int] = COLLUDERS
) -> int:
    present = set(nonces.positions)
    neighbours = _graph(scene, commitments, nonces).neighbours(VICTIM)
    return len([position for position in neighbours if position in colluders and position in present])


ATTACKS = (
    Attack(
        "A20a",
        "Biased graph",
        "the server shows the victim colluders in the place of its neighbours",
        Outcome.REFUSED,
        show_colluders_as_neighbours,
    ),
    Attack(
        "A20b",
        "Biased graph",
        "a colluder chooses its nonce when all others are known",
        Outcome.REFUSED,
        choose_a_nonce_last,
    ),
    Attack(
        "A20c",
        "Biased graph",
        "the server learns the victim's nonce under one list of commitments and continues with another",
        Outcome.REFUSED,
        reveal_after_another_list,
    ),
    Attack(
        "A20d",
        "Biased graph",
        "the server leaves out a nonce of its choice so that the order suits it",
        Outcome.REFUSED,
        leave_nonces_out,
    ),
)
