"""Runs in Tempest's own environment, where the tests run: lists them, or runs those named and tells of each as it ends, one JSON a line.

    relay.py FOLDER list                 {"name": ...} for each
    relay.py FOLDER run WORKERS FILE     {"name", "status", "seconds", "reason", "detail", "log"} for each

What Tempest says beside that goes to `tempest.log` in FOLDER. It ends its children when it is told to end.
"""

import json
import os
import signal
import subprocess
import sys

STESTR = "[DEFAULT]\ntest_path={place}/test_discover\ntop_dir={place}\ngroup_regex=([^\\.]*\\.)*\n"


def main(folder: str, verb: str, *rest: str) -> int:
    import tempest

    os.chdir(folder)
    with open(".stestr.conf", "w", encoding="utf-8") as file:
        file.write(STESTR.format(place=os.path.dirname(tempest.__file__)))
    place = os.path.dirname(sys.executable)
    words = [os.path.join(place, "tempest"), "run"]
    env = {**os.environ, "TEMPEST_CONFIG_DIR": folder, "TEMPEST_CONFIG": "tempest.conf", "OS_TEST_TIMEOUT": "1200", "PYTHONWARNINGS": "ignore"}
    with open("tempest.log", "ab") as log:
        if not os.path.isdir(".stestr"):
            subprocess.run([os.path.join(place, "stestr"), "init"], stdout=log, stderr=log, check=True)
        if verb == "list":
            return listed([*words, "--list-tests"], env, log)
        return run([*words, "--subunit", "--concurrency", rest[0], "--load-list", rest[1]], env, log)


def listed(words: list[str], env: dict[str, str], log: object) -> int:
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, stderr=log, text=True, check=False)  # type: ignore[call-overload]
    for line in done.stdout.splitlines():
        if line.startswith("tempest."):
            print(json.dumps({"name": line}))
    return int(done.returncode)


def run(words: list[str], env: dict[str, str], log: object) -> int:
    import subunit
    import testtools

    child = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=log, start_new_session=True)  # type: ignore[call-overload]

    def end(number: int, _frame: object) -> None:
        os.killpg(child.pid, signal.SIGTERM)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    result = testtools.StreamToDict(told)
    result.startTestRun()
    subunit.ByteStreamToStreamResult(child.stdout, non_subunit_name="stdout").run(result)
    result.stopTestRun()
    child.wait()
    return 0


def told(test: dict) -> None:  # type: ignore[type-arg]
    if not test["id"] or (test["status"] in ("exists", "unknown") and not test["details"]):
        return
    begun, ended = test["timestamps"]
    details = {name: content.as_text() for name, content in test["details"].items() if content.content_type.type == "text"}
    reason = details.pop("reason", "")
    log = details.pop("pythonlogging:''", "")
    failure = "\n".join(text for name, text in sorted(details.items()) if "traceback" in name)
    print(json.dumps({
        "name": test["id"], "status": test["status"], "reason": reason, "detail": failure,
        "log": log[-8000:] if failure else "", "seconds": (ended - begun).total_seconds() if begun and ended else 0,
    }), flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
