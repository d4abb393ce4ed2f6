// An identity provider for tests: oidc-provider, which shares no code with the
// gateway, the agent or the built-in issuer, on a loopback port.
//
//   node server.mjs DIRECTORY-WITH-node_modules
//
// It reads one JSON object a line from stdin, the configuration first and then
// commands, and answers each with one on stdout. It ends when stdin does, so that
// it never outlives who started it.

import { createServer } from 'node:https';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const installed = createRequire(join(process.argv[2], 'package.json'));
const { Provider, errors } = await import(pathToFileURL(installed.resolve('oidc-provider')));

// Memory is what the library keeps of tokens, codes and sessions. It is outside
// of the Provider so that a new one, with other keys, knows what the one before
// has issued.
class Memory {
  static kept = new Map();

  constructor(kind) { this.kind = kind; }

  key(id) { return `${this.kind} ${id}`; }

  async upsert(id, payload) { Memory.kept.set(this.key(id), payload); }

  async find(id) { return Memory.kept.get(this.key(id)); }

  async findByUid(uid) { return this.findBy('uid', uid); }

  async findByUserCode(code) { return this.findBy('userCode', code); }

  findBy(field, value) {
    for (const [key, payload] of Memory.kept) {
      if (key.startsWith(`${this.kind} `) && payload[field] === value) return payload;
    }
    return undefined;
  }

  async consume(id) { (await this.find(id)).consumed = Math.floor(Date.now() / 1000); }

  async destroy(id) { Memory.kept.delete(this.key(id)); }

  async revokeByGrantId(grant) {
    for (const [key, payload] of Memory.kept) {
      if (payload.grantId === grant) Memory.kept.delete(key);
    }
  }
}

// provider makes one that signs with the first key of each algorithm.
function provider(config, keys) {
  return new Provider(config.issuer, {
    adapter: Memory,
    jwks: { keys },
    clients: config.clients,
    cookies: { keys: [config.cookieKey] },
    scopes: ['openid', 'offline_access', ...config.scopes],
    clientAuthMethods: [
      'none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth', 'self_signed_tls_client_auth',
    ],
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'ES256', 'EdDSA'] },
    rotateRefreshToken: true,
    ttl: {
      AccessToken: config.lifetime, ClientCredentials: config.lifetime, DeviceCode: 600,
      IdToken: 600, Interaction: 600, Session: 3600, Grant: 3600, RefreshToken: 3600,
    },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: (_ctx, token) => ({ groups: config.groups[token.accountId ?? token.clientId] }),
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      revocation: { enabled: true },
      mTLS: {
        enabled: true,
        selfSignedTlsClientAuth: true,
        tlsClientAuth: true,
        getCertificate: (ctx) => ctx.socket.getPeerX509Certificate(),
        certificateAuthorized: (ctx) => ctx.socket.authorized,
        certificateSubjectMatches: (ctx, property, expected) => property === 'tls_client_auth_subject_dn'
          && ctx.socket.getPeerX509Certificate().subject === expected,
      },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (_ctx, uri) => {
          const resource = config.resources[uri];
          if (!resource) throw new errors.InvalidTarget();
          return {
            scope: config.scopes.join(' '),
            audience: resource.audience,
            accessTokenTTL: config.lifetime,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: resource.algorithm } },
          };
        },
      },
    },
  });
}

const answer = (said) => process.stdout.write(`${JSON.stringify(said)}\n`);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const config = JSON.parse((await lines.next()).value);
let serve = provider(config, config.keys).callback();
const server = createServer(
  { ...config.tls, requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.2' },
  (req, res) => serve(req, res),
);
server.on('error', (err) => { answer({ error: err.code ?? err.message }); process.exit(1); });
answer({ done: 'load', node: process.version });

for await (const line of lines) {
  const command = JSON.parse(line);
  switch (command.do) {
    case 'listen':
      await new Promise((listening) => { server.listen(config.port, '127.0.0.1', listening); });
      answer({ done: 'listen', port: server.address().port });
      break;
    case 'keys': // the first of each algorithm signs, all are published
      serve = provider(config, command.keys).callback();
      answer({ done: 'keys' });
      break;
    default:
      answer({ error: `there is no command ${command.do}` });
  }
}
process.exit(0);
