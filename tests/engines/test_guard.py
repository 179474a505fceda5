import json
import logging
import os
import re
import subprocess
import sys

import pytest

from protocols.errors import DecodeError, PolicyError, ProtocolError
from protocols.messages import Refusal, decode_message
from securefed.engines.guard import Guarded
from securefed.nodes.control import ControlStage, RefusedBySiteError, decode_reply
from securefed.nodes.site import SiteNode


class Node:
    def __init__(self, error=None):
        self.error = error

    def answer(self, stage, data):
        if self.error:
            raise self.error
        return stage.encode() + data


def code(reply):
    return decode_message(Refusal, reply, 48)[1].code


def test_a_reply_passes():
    assert Guarded(Node).answer("ShareKeys", b"!") == b"ShareKeys!"


def test_no_exception_and_no_word_of_it_gets_out_and_the_log_names_its_class(caplog):
    with caplog.at_level(logging.INFO, logger="securefed.site"):
        reply = Guarded(lambda: Node(RuntimeError("Mrs Smith"))).answer("ShareKeys", b"")
        assert (
            code(Guarded(lambda: Node(PolicyError("threshold", 2, "at least 3"))).answer("x", b""))
            == 7
            == PolicyError.code
        )
    assert code(reply) == ProtocolError.code
    assert b"Smith" not in reply
    assert "RuntimeError" in caplog.text
    assert "Smith" not in caplog.text


def test_a_fault_behind_a_node_is_logged_by_class_and_place_and_its_trace_at_debug_only(caplog):
    class Broken(SiteNode):
        def __init__(self):
            self.name = "birch"

        def answer(self, stage, data):
            raise ValueError("cannot convert Smith.png: 0.4711")

    class Stored:
        def answer(self, stage, data):
            return Broken().handle(stage, data)

    for level, told in ((logging.INFO, False), (logging.DEBUG, True)):
        caplog.clear()
        with caplog.at_level(level, logger="securefed.site"):
            assert code(Guarded(Stored).answer("MaskedInputCollection", b"x")) == ProtocolError.code
        assert re.search(r"a stage at birch failed: ValueError at securefed\.nodes\.site:\d+", caplog.text)
        assert ("Smith" in caplog.text) is told


def test_a_node_logs_traces_only_where_it_is_told_to():
    program = (
        "import logging; from securefed.deploy.node_process import log_as_json; log_as_json();"
        "logging.getLogger('securefed.site').debug('the trace'); logging.getLogger('other').debug('noise')"
    )
    for traces, expected in (("", []), ("1", ["the trace"])):
        environment = {**os.environ, "SECUREFED_TRACES": traces}
        ran = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert [json.loads(line)["message"] for line in ran.stderr.splitlines()] == expected


def test_what_is_no_stage_and_no_bytes_never_reaches_the_node():
    guarded = Guarded(lambda: Node(RuntimeError()))
    assert code(guarded.answer(["ShareKeys"], b"")) == DecodeError.code
    assert code(guarded.answer("ShareKeys", "text")) == DecodeError.code


def test_a_node_is_opened_once_and_again_where_that_failed():
    opened = []

    def open_node():
        opened.append(1)
        if len(opened) == 1:
            raise OSError("disk full")
        return Node()

    guarded = Guarded(open_node)
    assert code(guarded.answer("a", b"")) == ProtocolError.code
    assert [guarded.answer("a", b""), guarded.answer("b", b"")] == [b"a", b"b"]
    assert len(opened) == 2


def test_a_fault_at_a_control_message_is_refused_in_a_control_message():
    reply = Guarded(lambda: Node(RuntimeError("Mrs Smith"))).answer("Hello", b"")
    with pytest.raises(RefusedBySiteError, match="fault: something broke at the site; its own log says what"):
        decode_reply(ControlStage.HELLO, reply)
