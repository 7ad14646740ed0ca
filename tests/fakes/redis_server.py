"""A real redis-server on a free port of 127.0.0.1: killed, stopped and flushed as a test likes."""

import shutil
import signal
import socket
import subprocess
import time

SERVER = shutil.which("redis-server")
MISSING = "no redis-server here: sudo apt-get install redis-server"
ADMIN_PASSWORD = "the admin's own"


class RedisServer:
    """Keeps nothing on disk: after `kill` and `start` it is empty and has no users."""

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.admin_file = directory / "admin-password"
        self.admin_file.write_text(ADMIN_PASSWORD + "\n")
        self._config = directory / "redis.conf"
        self._config.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass "{ADMIN_PASSWORD}"\n'
            f'save ""\nappendonly no\ndir {directory}\nlogfile {directory}/redis.log\n'
        )
        self._process = None

    def start(self):
        self._process = subprocess.Popen([SERVER, str(self._config)])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError((self.directory / "redis.log").read_text()[-2000:])
            if self.cli("PING") == "PONG":
                return self
            time.sleep(0.01)
        raise AssertionError("redis-server does not answer")

    def kill(self):
        self._process.kill()
        self._process.wait(10)

    def stop_clock(self):
        """It accepts connections (the kernel does), but says nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        if self._process and self._process.poll() is None:
            self.kill()

    def cli(self, *words, user="default", password=ADMIN_PASSWORD):
        """What redis-cli, another client than ours, prints."""
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), "--user", user, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=10,
            env={"REDISCLI_AUTH": password, "PATH": "/usr/bin:/bin"},
            check=False,
        )
        return (done.stdout + done.stderr).strip()


def free_port():
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]
