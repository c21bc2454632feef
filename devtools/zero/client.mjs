// A Zero client that prints what it sees, one JSON object a line on stdout. Argument, as JSON:
// {"cacheURL", "schema", "views": {name: arguments of the query "rows"}, "logLevel"}.
// Lines: {"views": {name: {"rows": [...], "complete": true}}} holds all views that changed together;
// {"state": name, "reason"} the connection; {"event": "replaced"} that the client had to be made anew.
import {Zero} from '@rocicorp/zero';
import {queriesOf} from './queries.mjs';

const {cacheURL, schema, views, logLevel = 'error'} = JSON.parse(process.argv[2]);
const queries = queriesOf(schema);

const print = line => process.stdout.write(JSON.stringify(line) + '\n');
const logSink = {log: (level, _context, ...args) => console.error(level, ...args)};

function connect() {
  let replaced = false;
  // zero-cache no longer knows this client (it was reset, or speaks of another schema): begin anew, as a page would reload.
  const replace = () => {
    if (replaced) return;
    replaced = true;
    print({event: 'replaced'});
    void zero.close();
    connect();
  };
  const zero = new Zero({
    cacheURL,
    schema,
    kvStore: 'mem',
    logLevel,
    logSink,
    onClientStateNotFound: replace,
    onUpdateNeeded: replace,
  });
  zero.connection.state.subscribe(({name, reason}) => replaced || print({state: name, reason}));

  // Zero updates all views of one server state in one go, so what changed until the next microtask belongs together.
  const changed = new Map();
  for (const [name, args] of Object.entries(views)) {
    zero.materialize(queries.rows(args), {ttl: 'none'}).addListener((rows, result, error) => {
      if (replaced) return;
      if (changed.size === 0) {
        queueMicrotask(() => {
          print({views: Object.fromEntries(changed)});
          changed.clear();
        });
      }
      changed.set(name, {rows, complete: result === 'complete', ...(error && {error})});
    });
  }
}

connect();
// Ends with its parent, which holds the other end of stdin.
process.stdin.on('end', () => process.exit(0)).resume();
