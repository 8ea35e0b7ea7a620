'use strict';
// @grpc/grpc-js with the services of proto/, made of the files by @grpc/proto-loader.

const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const root = path.join(__dirname, '../../proto');
const files = ['holdline/v1/edge.proto', 'grpc/health/v1/health.proto'];
const definition = loader.loadSync(files, { includeDirs: [root], keepCase: true, longs: String, oneofs: true, enums: String });
const services = grpc.loadPackageDefinition(definition);

const edge = (address, options = {}) => new services.holdline.v1.Edge(address, grpc.credentials.createInsecure(), options);
const health = (address) => new services.grpc.health.v1.Health(address, grpc.credentials.createInsecure());

module.exports = { edge, grpc, health };
