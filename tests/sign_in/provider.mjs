// An OpenID provider on a free port of 127.0.0.1, for tests: the certified one of the npm package `oidc-provider`.
//
//     node provider.mjs PACKAGE
//
// PACKAGE is the folder of that package. Prints one line of JSON with the issuer and its client. On the input, `rotate`
// gives it a new key, which it signs with from then on while it still publishes the old ones, and `retire` makes it
// forget all but the newest; each is answered by the line `done`. It ends with its input.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const { Provider } = await import(pathToFileURL(`${process.argv[2]}/lib/index.js`));

const client = { id: 'notes-app', redirect: 'http://127.0.0.1/signed-in' };
let keys = [newKey()];
let handle;

function newKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const kid = randomBytes(8).toString('hex');
  return { ...privateKey.export({ format: 'jwk' }), kid, alg: 'RS256', use: 'sig' };
}

function provide(issuer) {
  const provider = new Provider(issuer, {
    jwks: { keys },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    // The page that asks for a name takes any: this signs in who says so.
    features: { devInteractions: { enabled: true } },
    findAccount: (_, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    clients: [{
      client_id: client.id,
      redirect_uris: [client.redirect],
      application_type: 'native',
      token_endpoint_auth_method: 'none',
    }],
    pkce: { required: () => true },
  });
  handle = provider.callback();
}

const server = createServer((request, response) => handle(request, response));
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  provide(issuer);
  console.log(JSON.stringify({ issuer, client: client.id, redirect: client.redirect }));
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    if (line === 'rotate') keys = [newKey(), ...keys];
    if (line === 'retire') keys = keys.slice(0, 1);
    provide(issuer);
    console.log('done');
  });
  lines.on('close', () => process.exit(0));
});
