// The one named query that both the client and the query endpoint know.
import {createBuilder, defineQueries, defineQuery} from '@rocicorp/zero';

// Arguments: {"table", "where": [[column, operator, value], ...], "orderBy": [[column, "asc" or "desc"], ...], "limit"};
// all but the table may be left out.
export function queriesOf(schema) {
  const builder = createBuilder(schema);
  return defineQueries({
    rows: defineQuery(({args}) => {
      let query = builder[args.table];
      for (const condition of args.where ?? []) query = query.where(...condition);
      for (const [column, direction] of args.orderBy ?? []) query = query.orderBy(column, direction);
      return args.limit === undefined ? query : query.limit(args.limit);
    }),
  });
}
