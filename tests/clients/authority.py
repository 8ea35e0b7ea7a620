"""A certificate authority of a test's own, by the openssl program, in a folder that goes with the test."""

import subprocess
import tempfile
import unittest
from pathlib import Path

SECONDS_MAX = 30


def openssl(*arguments, said=b"", status=0):
    done = subprocess.run(
        ["openssl", *map(str, arguments)], input=said, capture_output=True, timeout=SECONDS_MAX, check=False
    )
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert status is None or done.returncode == status, f"openssl {arguments[0]} ended with {done.returncode}: {text}"
    return text


class Authority:
    """Makes certificates with keys of NIST P-256, or RSA of 2048 bits."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="holdline-ca-")
        self.folder = Path(self._folder.name)
        self.certificate = self.folder / "ca.pem"
        self._key = self.folder / "ca.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "60", "-subj",
            "/CN=Test CA", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign", "-keyout",
            self._key, "-out", self.certificate,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._folder.cleanup()

    def issue(self, name, *hosts, rsa=False, days=30, client=False):
        """A certificate for these hosts and its key: both paths. The same name is written over."""
        certificate, key, request = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        kind = ["rsa:2048"] if rsa else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        openssl("req", "-newkey", *kind, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        names = ",".join(f"{'IP' if host[0].isdigit() else 'DNS'}:{host}" for host in hosts)
        extensions = self.folder / f"{name}.ext"
        usage = "clientAuth" if client else "serverAuth"
        extensions.write_text(f"extendedKeyUsage={usage}\n" + (f"subjectAltName={names}\n" if names else ""))
        openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", days,
            "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, key


def authority_for_module():
    return unittest.enterModuleContext(Authority())
