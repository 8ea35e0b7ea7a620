'use strict';
// @grpc/grpc-js with the services of proto/, made of the files by @grpc/proto-loader.

const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const root = path.join(__dirname, '../../proto');
const files = ['holdline/v1/edge.proto', 'grpc/health/v1/health.proto'];
const definition = loader.loadSync(files, { includeDirs: [root], keepCase: true, longs: String, oneofs: true, enums: String });
const services = grpc.loadPackageDefinition(definition);

// Clients with the same credentials share a connection.
const made = new Map();

// Of an authority's certificate in PEM: TLS, and trust in what it signs. Without one there is no TLS.
function credentials(ca) {
  if (!made.has(ca)) made.set(ca, ca ? grpc.credentials.createSsl(ca) : grpc.credentials.createInsecure());
  return made.get(ca);
}

const edge = (address, options = {}, ca = null) => new services.holdline.v1.Edge(address, credentials(ca), options);
const health = (address, ca = null) => new services.grpc.health.v1.Health(address, credentials(ca));

module.exports = { edge, grpc, health };
