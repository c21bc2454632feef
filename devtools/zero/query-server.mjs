// The query endpoint that zero-cache calls (ZERO_QUERY_URL). Argument: {"schema", "port"} as JSON.
import {createServer} from 'node:http';
import {mustGetQuery} from '@rocicorp/zero';
import {handleQueryRequest} from '@rocicorp/zero/server';
import {queriesOf} from './queries.mjs';

const {schema, port} = JSON.parse(process.argv[2]);
const queries = queriesOf(schema);
const handler = (name, args) => mustGetQuery(queries, name).fn({args, ctx: {}});

const server = createServer(async (incoming, outgoing) => {
  try {
    const chunks = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const request = new Request(new URL(incoming.url, `http://127.0.0.1:${port}`), {
      method: 'POST',
      headers: {'content-type': 'application/json'},
      body: Buffer.concat(chunks),
    });
    const answer = await handleQueryRequest({handler, schema, request, userID: null, logLevel: 'error'});
    outgoing.writeHead(200, {'content-type': 'application/json'}).end(JSON.stringify(answer));
  } catch (error) {
    console.error(error);
    outgoing.writeHead(500).end(String(error));
  }
});
server.listen(port, '127.0.0.1');
