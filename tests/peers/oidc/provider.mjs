// An OpenID Connect provider on loopback: one client, every account logs in by its name alone.
// The arguments are the redirect URI and the client's secret; accounts are "NAME:GROUP".
import http from 'node:http';
import { Provider } from 'oidc-provider';

const [redirectUri, secret] = process.argv.slice(2);
const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id: 'console', client_secret: secret, redirect_uris: [redirectUri] }],
    pkce: { required: () => true },
    claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
    conformIdTokenClaims: false,
    cookies: { keys: ['a key of the tests'] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, preferred_username: id.split(':')[0], groups: [id.split(':')[1]] }),
    }),
  });
  server.on('request', provider.callback());
  console.log(`ready ${issuer}`);
});
