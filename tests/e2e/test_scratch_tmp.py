from devtools.zeroclient import zero_schema
from devtools.processes import alive
def test_all(mongo, deployment, zero_cache, zero_client, query_server):
    mongo.messages.insert_many([{'_id': f'm{i}', 'content': f'hello {i}'} for i in range(5)])
    d = deployment()
    d.configure(schema={"message": {"tableName": "message", "columns": {"id": {"type": "string"}, "content": {"type":"string"}}, "primaryKey": ["id"]}},
      mappings={"message": {"collection": "messages", "fields": {"id": "_id", "content": "content"}}})
    s = d.server()
    print(s.rss, s.url)
    schema = zero_schema({"message": ({"id": "string", "content": "string?"}, ["id"])})
    z = zero_cache(s.stream_url, query_url=query_server(schema).url)
    z.wait_ready()
    assert len(z.rows('message')) == 5
    c = zero_client(z.url, schema, ['message'])
    c.wait_complete()
    mongo.messages.insert_one({'_id': 'x', 'content': 'live'})
    c.wait_for(lambda v: len(v['message']) == 6)
    pids = z.pids(); z.kill(); assert not alive(pids)

def test_split(mongo, deployment, zero_cache):
    mongo.messages.insert_many([{'_id': f'm{i}', 'content': f'hello {i}'} for i in range(5)])
    d = deployment(database='postgres', redis=True)
    d.configure(schema={"message": {"tableName": "message", "columns": {"id": {"type": "string"}, "content": {"type":"string"}}, "primaryKey": ["id"]}},
      mappings={"message": {"collection": "messages", "fields": {"id": "_id", "content": "content"}}})
    s = d.server('--no-watcher'); s2 = d.server('--no-watcher'); w = d.watcher()
    z = zero_cache(s2.stream_url, app_id='two'); z.wait_ready(); 
    assert len(z.rows('message')) == 5
    print(w.log_text(), s.log_text(), s2.log_text())
