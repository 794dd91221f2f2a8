"""Tests of the comparison of AI gateways, without any of them."""

import json
import os
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import ai, ai_load, machine, open_load, streams  # noqa: E402
from harness.load import Spoiled  # noqa: E402


class Calls(unittest.TestCase):
    def test_the_prompt_has_2_kb_and_is_a_chat(self) -> None:
        chat = json.loads(ai.prompt())
        self.assertAlmostEqual(len(ai.prompt()), 2000, delta=100)
        self.assertEqual(chat["messages"][0]["role"], "user")
        self.assertTrue(json.loads(ai.prompt(stream=True))["stream"])

    def test_the_header_that_names_the_provider_has_its_port(self) -> None:
        portkey = next(call for call in ai.CALLS if call.name == "Portkey")
        self.assertEqual(portkey.header_fields(4711)["x-portkey-custom-host"], "http://127.0.0.1:4711/v1")

    def test_the_script_of_wrk_posts_the_body_and_prints_the_summary(self) -> None:
        script = ai_load._script(ai.CALLS[0], 1)
        self.assertIn('wrk.method = "POST"', script)
        self.assertIn(json.dumps(ai.prompt()), script)
        self.assertIn("wrk-summary", script)


class CallsAtARate(unittest.TestCase):
    def test_the_request_is_whole(self) -> None:
        head, body = open_load.request(ai.DIRECT, 1, 2).decode().split("\r\n\r\n")
        self.assertTrue(head.startswith("POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"))
        self.assertIn(f"Content-Length: {len(body)}", head)
        self.assertEqual(body, ai.prompt())

    def test_a_server_that_falls_behind_is_saturated(self) -> None:
        behind = open_load.parse('{"planned":2000,"answered":1800,"p50_us":90000,"p99_us":null}', 2)
        self.assertTrue(behind.saturated)
        self.assertEqual(behind.throughput, 900)
        self.assertTrue(open_load.parse('{"planned":9,"answered":9,"p50_us":null,"p99_us":null}', 2).saturated)
        self.assertFalse(open_load.parse('{"planned":2000,"answered":1998,"p50_us":90,"p99_us":200}', 2).saturated)

    def test_what_is_no_summary_spoils_the_round(self) -> None:
        with self.assertRaisesRegex(Spoiled, "refused"):
            open_load.parse("connection refused", 2)


class OpenStreams(unittest.TestCase):
    def test_every_stream_is_open_and_goes_on(self) -> None:
        """The provider answers its clients directly, in the place of a gateway."""
        (port,) = machine.free_ports(1)
        held = streams.hold(SimpleNamespace(pid=os.getpid()), port, port, 20)
        self.assertEqual(held.streams, 20)
        self.assertGreater(held.during, 0)


if __name__ == "__main__":
    unittest.main()
