import logging

import pytest

from protocols.errors import DecodeError, PolicyError, ProtocolError
from protocols.messages import Refusal, decode_message
from securefed.engines.guard import Guarded
from securefed.nodes.control import ControlStage, RefusedBySiteError, decode_reply


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
