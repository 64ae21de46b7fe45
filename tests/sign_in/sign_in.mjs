// Signs users in to an OpenID provider as an app does: by the authorization code flow with PKCE.
//
//     node sign_in.mjs ISSUER CLIENT REDIRECT USER...
//
// Prints the ID token of each user on a line of its own.
import { createHash, randomBytes } from 'node:crypto';

const [issuer, client, redirect, ...users] = process.argv.slice(2);
const discovery = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();

/** A browser without pages: it keeps cookies and follows redirects, until one leads to the app. */
class Browser {
  cookies = new Map();

  async open(url, form) {
    for (let step = 0; step < 20; step += 1) {
      const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      const body = form && new URLSearchParams(form);
      const response = await fetch(url, { method: form ? 'POST' : 'GET', body, headers: { cookie }, redirect: 'manual' });
      for (const line of response.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
        if (value) this.cookies.set(name, value);
        else this.cookies.delete(name);
      }
      const location = response.headers.get('location');
      if (!location) return { page: await response.text(), url };
      url = new URL(location, url).href;
      form = undefined;
      if (url.startsWith(redirect)) return { url };
    }
    throw new Error(`it leads on and on: ${url}`);
  }
}

async function signIn(user) {
  const browser = new Browser();
  const verifier = randomBytes(32).toString('base64url');
  const [state, nonce] = [randomBytes(8).toString('hex'), randomBytes(8).toString('hex')];
  const ask = new URL(discovery.authorization_endpoint);
  ask.search = new URLSearchParams({
    client_id: client,
    redirect_uri: redirect,
    response_type: 'code',
    scope: 'openid',
    state,
    nonce,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  let at = await browser.open(ask.href);
  // First who it is, then whether the app may know.
  while (at.page !== undefined) {
    const action = /<form[^>]* action="([^"]+)"/.exec(at.page);
    const prompt = /name="prompt" value="([^"]+)"/.exec(at.page);
    if (!action || !prompt) throw new Error(`there is no form on the page ${at.url}: ${at.page}`);
    at = await browser.open(new URL(action[1], at.url).href, { prompt: prompt[1], login: user, password: 'any' });
  }
  const back = new URL(at.url).searchParams;
  if (back.get('state') !== state) throw new Error(`the provider sent back ${at.url}`);
  const answer = await fetch(discovery.token_endpoint, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      client_id: client,
      redirect_uri: redirect,
      code: back.get('code'),
      code_verifier: verifier,
    }),
  });
  const tokens = await answer.json();
  if (!answer.ok) throw new Error(`there are no tokens: ${JSON.stringify(tokens)}`);
  return tokens.id_token;
}

for (const user of users) console.log(await signIn(user));
