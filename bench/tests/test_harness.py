"""Tests of the parts that turn raw counts into claims."""

import os
import socket
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import job, load, machine, peers, report  # noqa: E402
from harness.load import Round, Spoiled  # noqa: E402
from harness.process import Process, Unavailable  # noqa: E402
from harness.report import Result  # noqa: E402

SUMMARY = (
    "Running 1s test @ http://127.0.0.1:1/\n"
    'wrk-summary {"requests":%d,"duration_us":2000000,"bytes":%d,"p50_us":700,"p99_us":1500,"max_us":9000,'
    '"errors":{"connect":0,"read":%d,"write":0,"timeout":0,"status":%d}}\n'
)


def a_round(cpu_us: float, others: float = 0.0, share: float = 0.95) -> Round:
    return Round(1000, 500.0, 700, 1500, cpu_us, cpu_us / 2, cpu_us / 2, share, others, 0.5)


class WrkSummary(unittest.TestCase):
    def test_the_summary_is_found_among_the_rest_of_the_output(self) -> None:
        found = load.parse(SUMMARY % (1000, 1_200_000, 0, 0))
        load.check(found)
        self.assertEqual((found.requests, found.seconds, found.p99_us), (1000, 2.0, 1500))

    def test_output_without_a_summary_spoils_the_round(self) -> None:
        with self.assertRaisesRegex(Spoiled, "unable to connect"):
            load.parse("unable to connect to 127.0.0.1:1 Connection refused")

    def test_one_error_spoils_the_round(self) -> None:
        with self.assertRaisesRegex(Spoiled, "3 status"):
            load.check(load.parse(SUMMARY % (1000, 1_200_000, 0, 3)))
        with self.assertRaisesRegex(Spoiled, "1 read"):
            load.check(load.parse(SUMMARY % (1000, 1_200_000, 1, 0)))

    def test_no_requests_spoil_the_round(self) -> None:
        with self.assertRaisesRegex(Spoiled, "no request"):
            load.check(load.parse(SUMMARY % (0, 0, 0, 0)))

    def test_replies_without_the_body_spoil_the_round(self) -> None:
        with self.assertRaisesRegex(Spoiled, "200 bytes"):
            load.check(load.parse(SUMMARY % (1000, 200_000, 0, 0)))


class Machine(unittest.TestCase):
    def test_a_command_name_with_brackets_does_not_shift_the_fields(self) -> None:
        self.assertEqual(machine.stat_fields("7 (a) b (c) S 1 7 7")[:2], ["S", "1"])

    def test_free_ports_are_distinct_and_can_be_bound(self) -> None:
        ports = machine.free_ports(8)
        self.assertEqual(len(set(ports)), 8)
        for port in ports:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", port))

    def test_the_cpu_time_of_a_process_that_ended_is_zero(self) -> None:
        self.assertEqual(machine.cpu_time(2**22 + 1).total, 0)


class Configuration(unittest.TestCase):
    def test_every_template_is_filled_in(self) -> None:
        for peer in (peers.BACKEND, *peers.PROXIES):
            with tempfile.TemporaryDirectory() as folder:
                place = peers.Place(Path(folder, "here"), 21001, 21002, 21003)
                peer.configure(place)
                for path in place.folder.iterdir():
                    self.assertNotRegex(path.read_text(), peers.PLACEHOLDER, f"{peer.name}/{path.name}")

    def test_the_body_fits_into_a_quoted_string_of_nginx(self) -> None:
        self.assertEqual(len(job.BODY), 1024)
        self.assertNotRegex(job.BODY, r"[\"$\\]")


class Processes(unittest.TestCase):
    def test_a_server_that_ends_early_is_unavailable_with_its_last_words(self) -> None:
        core = min(os.sched_getaffinity(0))
        with tempfile.TemporaryDirectory() as folder:
            process = Process("liar", ["sh", "-c", "echo no such file; exit 3"], core, Path(folder, "log"))
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self.assertRaisesRegex(Unavailable, "exited with status 3: no such file"):
                process.check_alive()


class Report(unittest.TestCase):
    def setUp(self) -> None:
        self.nginx = Result("nginx", rounds=[a_round(cost) for cost in (10.0, 99.0, 12.0)])
        self.gateway = Result("nantian", rounds=[a_round(cost) for cost in (14.0, 15.0, 16.0)])

    def test_ratios_compare_medians(self) -> None:
        self.assertEqual(report.ratio(self.gateway, "nginx", [self.nginx, self.gateway]), 1.25)

    def test_a_plugin_costs_what_is_paid_beyond_the_plain_server(self) -> None:
        with_plugin = Result("nantian+plugin", rounds=[a_round(cost) for cost in (17.5, 18.5, 16.0)])
        self.assertEqual(report.added("nantian", [self.gateway, with_plugin]), 2.5)
        self.assertIsNone(report.added("nantian", [self.gateway]))

    def test_there_is_no_ratio_to_a_peer_that_broke(self) -> None:
        self.nginx.problem = "wrk reported errors: 1 read"
        self.assertIsNone(report.ratio(self.gateway, "nginx", [self.nginx, self.gateway]))

    def test_a_peer_that_broke_is_not_in_the_table_but_in_the_remarks(self) -> None:
        self.nginx.problem, self.nginx.broke = "wrk reported errors: 1 read", True
        results = [self.nginx, self.gateway]
        self.assertNotIn("nginx ", report.table(results).split("\n", 1)[1])
        self.assertIn("nginx: FAILED: wrk reported errors: 1 read", report.remarks(results))

    def test_a_proxy_that_skips_part_of_the_job_is_told_apart(self) -> None:
        self.gateway.behaviour = job.Behaviour(routes=True, forwarded=("for", "proto"))
        remarks = " ".join(report.remarks([self.gateway]))
        self.assertIn("without X-Forwarded-Host", remarks)

    def test_foreign_work_on_the_core_is_called_noise(self) -> None:
        self.gateway.behaviour = job.Behaviour(routes=True, forwarded=job.FORWARDED_HEADERS)
        self.gateway.rounds = [a_round(14.0, others=0.4, share=0.6)]
        remarks = report.remarks([self.gateway])
        self.assertEqual(len(remarks), 1)
        self.assertIn("NOISE: other work took up to 40%", remarks[0])


if __name__ == "__main__":
    unittest.main()
