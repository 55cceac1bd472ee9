// Evaluates the cases of a file with the LaunchDarkly SDK for Node; see ../README.md for the interface.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { basicLogger, init } from '@launchdarkly/node-server-sdk';
import redisIntegration from '@launchdarkly/node-server-sdk-redis';
import { Cluster, Redis } from 'ioredis';

const INITIALIZATION_SECONDS = 10;

const { values: options } = parseArgs({
  options: {
    mode: { type: 'string' },
    'redis-url': { type: 'string' },
    prefix: { type: 'string' },
    'tls-ca': { type: 'string' },
    'tls-cert': { type: 'string' },
    'tls-key': { type: 'string' },
    'sentinel-password': { type: 'string' },
    base: { type: 'string' },
    stream: { type: 'string' },
    'sdk-key': { type: 'string', default: 'sdk-reader' },
    cases: { type: 'string' },
    interactive: { type: 'boolean', default: false },
  },
});

function addresses(url) {
  return url.host.split(',').map((address) => {
    const [host, port] = address.split(':');
    return { host, port: Number(port) };
  });
}

function tls() {
  const [ca, cert, key] = ['tls-ca', 'tls-cert', 'tls-key'].map((name) => options[name] && readFileSync(options[name]));
  return { ca, cert, key };
}

// What the store is given: options for a client that it makes, or a client.
function redisClient() {
  const [, scheme, host, path] = /^(.+?):\/\/([^/]*)(.*)$/.exec(options['redis-url']);
  const url = { host: host.replace(/^.*@/, ''), path };
  const [username, password] = host.includes('@') ? host.replace(/@.*$/, '').split(':') : [];
  switch (scheme) {
    case 'redis':
    case 'rediss':
      return { redisOpts: { ...addresses(url)[0], username, password, tls: scheme === 'rediss' ? tls() : undefined } };
    case 'redis+unix':
      return { redisOpts: { path } };
    case 'redis+sentinel': {
      const sentinelPassword = options['sentinel-password'];
      return { client: new Redis({ sentinels: addresses(url), name: path.slice(1), sentinelPassword }) };
    }
    case 'redis+cluster':
      return { client: new Cluster(addresses(url)) };
    default:
      throw new Error(`not a URL of Redis: ${options['redis-url']}`);
  }
}

function makeClient() {
  const config = {
    sendEvents: false,
    diagnosticOptOut: true,
    logger: basicLogger({ level: 'warn', destination: (line) => process.stderr.write(`${line}\n`) }),
  };
  if (options.mode === 'daemon') {
    config.useLdd = true;
    config.featureStore = redisIntegration.RedisFeatureStore({
      ...redisClient(),
      prefix: options.prefix,
      cacheTTL: 0,
    });
  } else {
    config.baseUri = options.base;
    config.streamUri = options.stream;
    config.eventsUri = options.base;
  }
  return init(options['sdk-key'], config);
}

async function evaluated(client, { flag, context, default: fallback }) {
  const detail = await client.variationDetail(flag, context, fallback);
  const { kind, errorKind } = detail.reason;
  return {
    flag,
    value: detail.value,
    variation: detail.variationIndex ?? null,
    reason: kind === 'ERROR' ? `${kind}:${errorKind}` : kind,
  };
}

async function evaluation(client, fixture) {
  const state = await client.allFlagsState(fixture.allFlagsContext);
  const cases = [];
  for (const one of fixture.cases) {
    cases.push(await evaluated(client, one));
  }
  return { cases, allFlags: { valid: state.valid, values: state.allValues() } };
}

const fixture = JSON.parse(readFileSync(options.cases, 'utf8'));
const client = makeClient();
try {
  await client.waitForInitialization({ timeout: INITIALIZATION_SECONDS });
} catch (error) {
  process.stderr.write(`not initialized: ${error}\n`);
}
const lines = options.interactive ? createInterface({ input: process.stdin }) : [''];
for await (const _ of lines) {
  process.stdout.write(`${JSON.stringify(await evaluation(client, fixture))}\n`);
}
client.close();
