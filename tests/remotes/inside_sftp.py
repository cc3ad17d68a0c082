"""Run by test_services.py in an environment with paramiko and asyncssh: the tests of repositories, against an SFTP server.

``python inside_sftp.py FOLDER``: FOLDER is the repository's checkout.
"""

import asyncio
import json
import os
import sys
import tempfile
import threading

import asyncssh
import pytest

HELD = tempfile.TemporaryDirectory()
PORTS = []
READY = threading.Event()


class Server(asyncssh.SSHServer):
    """Lets one user in, by a password."""

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        return (username, password) == ("me", "canary-password")


async def serve():
    """Until this process ends."""
    listening = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[asyncssh.generate_private_key("ssh-rsa")],
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=HELD.name),
    )
    PORTS.append(listening.get_port())
    READY.set()
    await asyncio.Event().wait()


threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
READY.wait(60)
os.environ |= {
    "FSSPEC_SFTP": json.dumps({"port": PORTS[0], "username": "me", "password": "canary-password"}),
    "ADAPTERKIT_TEST_SCHEMES": "sftp",
}
os.chdir(sys.argv[1])
code = pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", "-k", "sftp", "tests/remotes/test_fsspec.py"])
HELD.cleanup()
sys.exit(code)
