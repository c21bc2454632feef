// Reads a zero-cache replica: one JSON request a line on stdin, one JSON answer a line on stdout.
// Request: {"file", "sql", "params"}. Answer: {"columns": [[name, declared type], ...], "rows": [[...], ...]} or {"error"}.
import {createInterface} from 'node:readline';
import Database from '@rocicorp/zero-sqlite3';

// Integers beyond 2^53 are written exactly; what JSON has no number for is written as text ("Infinity").
function exact(_key, value) {
  if (typeof value === 'bigint') return JSON.rawJSON(value.toString());
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  return value;
}

function answer({file, sql, params}) {
  // Opened for each request: zero-cache removes the file and makes another one when it is reset.
  const database = new Database(file, {readonly: true, fileMustExist: true});
  try {
    const statement = database.prepare(sql).safeIntegers(true).raw(true);
    const columns = statement.columns().map(({name, type}) => [name, type]);
    return {columns, rows: statement.all(...params)};
  } finally {
    database.close();
  }
}

for await (const line of createInterface({input: process.stdin})) {
  let result;
  try {
    result = answer(JSON.parse(line));
  } catch (error) {
    result = {error: error.message};
  }
  process.stdout.write(JSON.stringify(result, exact) + '\n');
}
