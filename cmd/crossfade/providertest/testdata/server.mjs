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
const load = (name) => import(pathToFileURL(installed.resolve(name)));
const { Provider, errors } = await load('oidc-provider');
const { createLocalJWKSet, jwtVerify } = await load('jose');

// The identifiers of RFC 8693.
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const TYPE_JWT = 'urn:ietf:params:oauth:token-type:jwt';
const TYPE_ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

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

// resourceServer says what a token for a resource of RFC 8707 is like.
function resourceServer(config, uri) {
  const resource = config.resources[uri];
  if (!resource) throw new errors.InvalidTarget();
  return {
    scope: config.scopes.join(' '),
    audience: resource.audience,
    accessTokenTTL: config.lifetime,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: resource.algorithm } },
  };
}

// exchange answers the grant of RFC 8693, which the library leaves to others: a
// token of the cluster, which is for this provider, for one of the same subject.
function exchange(provider, config) {
  const cluster = createLocalJWKSet({ keys: config.cluster.keys });
  return async (ctx) => {
    const { client, params } = ctx.oidc;
    if (!params.subject_token || params.subject_token_type !== TYPE_JWT) {
      throw new errors.InvalidRequest('subject_token must be a JWT');
    }
    if ((params.requested_token_type ?? TYPE_ACCESS_TOKEN) !== TYPE_ACCESS_TOKEN) {
      throw new errors.InvalidRequest('only access tokens are issued');
    }
    const expected = { issuer: config.cluster.issuer, audience: config.issuer, requiredClaims: ['sub', 'exp'] };
    const { payload } = await jwtVerify(params.subject_token, cluster, expected).catch((err) => {
      throw new errors.InvalidGrant(`the subject token is not accepted: ${err.code}`);
    });
    const token = new provider.AccessToken({ accountId: payload.sub, client, gty: 'token_exchange' });
    token.resourceServer = new provider.ResourceServer(params.resource, resourceServer(config, params.resource));
    ctx.body = {
      access_token: await token.save(), issued_token_type: TYPE_ACCESS_TOKEN, token_type: 'Bearer', expires_in: token.expiration,
    };
  };
}

// newProvider makes one that signs with the first key of each algorithm.
function newProvider(config, keys) {
  const provider = new Provider(config.issuer, {
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
        getResourceServerInfo: (_ctx, uri) => resourceServer(config, uri),
      },
    },
  });
  const parameters = ['subject_token', 'subject_token_type', 'requested_token_type', 'audience', 'resource', 'scope'];
  provider.registerGrantType(TOKEN_EXCHANGE, exchange(provider, config), parameters);
  return provider;
}

const answer = (said) => process.stdout.write(`${JSON.stringify(said)}\n`);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const config = JSON.parse((await lines.next()).value);
let serve = newProvider(config, config.keys).callback();
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
      serve = newProvider(config, command.keys).callback();
      answer({ done: 'keys' });
      break;
    default:
      answer({ error: `there is no command ${command.do}` });
  }
}
process.exit(0);
