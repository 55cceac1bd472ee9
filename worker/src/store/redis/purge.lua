local refused = refusal()
if refused then return refused end
redis.call('UNLINK', features, segments, marker)
return finish()
