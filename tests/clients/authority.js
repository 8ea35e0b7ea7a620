'use strict';
// A certificate authority of a test's own, by the openssl program: a folder that goes with the process.

const { execFileSync } = require('node:child_process');
const { createHash, X509Certificate } = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const CURVE = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

const openssl = (...words) => execFileSync('openssl', words, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 30_000 });

class Authority {
  constructor() {
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdline-ca-'));
    process.on('exit', () => fs.rmSync(this.folder, { recursive: true, force: true }));
    // Who trusts it, names this file.
    this.file = path.join(this.folder, 'ca.pem');
    this.key = path.join(this.folder, 'ca.key');
    openssl('req', '-x509', ...CURVE, '-days', '60', '-subj', '/CN=Test CA', '-addext', 'basicConstraints=critical,CA:TRUE',
      '-addext', 'keyUsage=keyCertSign', '-keyout', this.key, '-out', this.file);
  }

  // What it is, in PEM.
  get pem() {
    return fs.readFileSync(this.file);
  }

  // A certificate for localhost and 127.0.0.1, and its key: { certificate, key }, both files.
  issue(name) {
    const [certificate, key, request, extensions] =
      ['pem', 'key', 'csr', 'ext'].map((end) => path.join(this.folder, `${name}.${end}`));
    openssl('req', ...CURVE, '-subj', `/CN=${name}`, '-keyout', key, '-out', request);
    fs.writeFileSync(extensions, 'extendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n');
    openssl('x509', '-req', '-in', request, '-CA', this.file, '-CAkey', this.key, '-CAcreateserial', '-days', '30',
      '-extfile', extensions, '-out', certificate);
    return { certificate, key };
  }
}

// The digest of a certificate's public key (RFC 7469 section 2.4), by which Chromium can be told to trust it.
function pin(certificate) {
  const { publicKey } = new X509Certificate(fs.readFileSync(certificate));
  return createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
}

module.exports = { Authority, pin };
