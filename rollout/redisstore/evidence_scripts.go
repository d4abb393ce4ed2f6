package redisstore

import "github.com/redis/go-redis/v9"

// recordDay counts requests and merges runs as evidence.Run.Merge says. Of the
// runs of an account and a pipeline it keeps those with the smallest ids, and
// failed ones beyond those.
//
//	KEYS  1 counts, 2 runs that are not kept, 3 runs, 4 runs of the day before, and so on
//	ARGV  1 a dayPart as JSON
//
// The fields of the runs' key are r:<id>, a runRow or wideRow as JSON; p:<pair>, the ids that
// are chosen of a pair of account and pipeline, 32 digits each, in their order;
// b:<pair>, how many failed ones are kept beyond, and f:<account>, how many of the
// account; a:<account>, how many pipelines it has; and pairs, how many there are. The counts' key has seq:<replica> for
// the last batch that was counted. A run that is not known on the day but on an
// earlier one is merged there if it goes on, as evidence.Run.Continues says. An
// earlier day that cannot be read knows none: it is no reason to lose this one.
var recordDay = redis.NewScript(`
local part = cjson.decode(ARGV[1])
local seq = 'seq:' .. part.replica
if type(part.counts) == 'table' and tonumber(redis.call('HGET', KEYS[1], seq) or '0') < part.seq then
  for field, n in pairs(part.counts) do redis.call('HINCRBY', KEYS[1], field, n) end
  redis.call('HSET', KEYS[1], seq, part.seq)
end

local function earliest(a, b)
  if a == 0 or (b ~= 0 and b < a) then return b end
  return a
end

-- wide returns a run with all that a row leaves out, and all times since 1970.
local function wide(run)
  local flags = run.s or ''
  if run.f then
    for letter, name in pairs({l = 'legacy', t = 'token', e = 'enforced', r = 'refused', b = 'brownout', o = 'observed'}) do
      if run[name] then flags = flags .. letter end
      run[name] = nil
    end
  else
    local at = run.at or 0
    run.f, run.l, run.w = at, at + (run.l or 0), at + (run.w or 0)
    for _, time in ipairs({'x', 'e', 'k'}) do
      if run[time] then run[time] = at + run[time] end
    end
    if run.x then run.y = run.x + (run.y or 0) end
  end
  run.s, run.g, run.a, run.p, run.x, run.y = flags, run.g or 0, run.a or '', run.p or '', run.x or 0, run.y or 0
  return run
end

-- narrow returns a run as the text of a row.
local function narrow(run)
  local at = run.f
  local row = {at = at, l = run.l - at, w = run.w - at, g = run.g}
  if run.x ~= 0 then row.y = run.y - run.x end
  for name, n in pairs(row) do
    if n == 0 then row[name] = nil end
  end
  if run.x ~= 0 then row.x = run.x - at end
  for _, time in ipairs({'e', 'k'}) do
    if run[time] and run[time] ~= 0 then row[time] = run[time] - at end
  end
  for _, name in ipairs({'a', 'p', 'r', 'd', 't', 'c', 's', 'n'}) do
    if run[name] ~= '' then row[name] = run[name] end
  end
  row.m = run.m
  return cjson.encode(row)
end

-- failure returns the first request of a run whose token would not have been let in.
local function failure(run)
  if run.g == part.bad then return {r = run.r, d = run.d, t = run.t, w = run.w} end
  return run.m
end

local function escaped(text)
  return (string.gsub(text or '', '[^%w_.~-]', function(c)
    if c == ' ' then return '+' end
    return string.format('%%%02X', string.byte(c))
  end))
end

-- signals adds those of a run to all, by grade and reason, as evidence.Signals has
-- them.
local function signals(all, run)
  local texts = run.n or ''
  if run.g >= part.signal then
    texts = string.format('%d %s %.0f %s;', run.g, escaped(run.r), run.w, escaped(run.t)) .. texts
  end
  for text in string.gmatch(texts, '[^;]+') do
    local of, at = string.match(text, '^(%d+ %S*) (-?%d+) ')
    if of and (not all[of] or tonumber(at) < all[of].at) then all[of] = {at = tonumber(at), text = text} end
  end
end

local function merge(a, b)
  local fails, all = nil, {}
  if a.g >= part.signal or b.g >= part.signal then
    local x, y = failure(a), failure(b)
    fails = x
    if not x or (y and y.w < x.w) then fails = y end
    signals(all, a)
    signals(all, b)
  end
  if b.g > a.g or (b.g == a.g and (a.w == 0 or (b.w < a.w and b.w ~= 0))) then
    a.g, a.r, a.d, a.t, a.w = b.g, b.r, b.d, b.t, b.w
  end
  if a.g >= part.signal then
    a.m = fails
    local texts = {}
    for of, signal in pairs(all) do
      if of ~= string.format('%d %s', a.g, escaped(a.r)) then table.insert(texts, signal.text) end
    end
    table.sort(texts)
    a.n = table.concat(texts, ';')
  end
  if b.l > a.l or (b.l == a.l and (b.c or '') > (a.c or '')) then a.c = b.c end
  if a.p == '' then a.p = b.p end
  a.f, a.l = earliest(a.f, b.f), math.max(a.l, b.l)
  for flag in string.gmatch(b.s, '.') do
    if not string.find(a.s, flag, 1, true) then a.s = a.s .. flag end
  end
  a.x, a.y = earliest(a.x, b.x), math.max(a.y, b.y)
  for _, time in ipairs({'e', 'k'}) do
    if b[time] then a[time] = earliest(a[time] or 0, b[time]) end
  end
  return a
end

local function failed(run) return run.g >= part.bad or string.find(run.s, 'r', 1, true) end

local function pair(run) return redis.sha1hex(#run.a .. ':' .. run.a .. run.p) end

local function number(key, field) return tonumber(redis.call('HGET', key, field) or '0') end

-- place returns where in a list of ids one stands, or would.
local function place(ids, id)
  local low, high = 0, #ids / 32
  while low < high do
    local middle = math.floor((low + high) / 2)
    if string.sub(ids, 32 * middle + 1, 32 * middle + 32) < id then low = middle + 1 else high = middle end
  end
  return 32 * low + 1
end

local function drop(key, id, from)
  local ids = redis.call('HGET', key, 'p:' .. from) or ''
  local at = place(ids, id)
  if string.sub(ids, at, at + 31) == id then
    redis.call('HSET', key, 'p:' .. from, string.sub(ids, 1, at - 1) .. string.sub(ids, at + 32))
  end
end

-- room reports whether another pair may be kept, and counts it.
local function room(key, run)
  local account = 'a:' .. redis.sha1hex(run.a)
  if number(key, account) >= part.max_pipelines or number(key, 'pairs') >= part.max_pairs then return false end
  redis.call('HINCRBY', key, account, 1)
  redis.call('HINCRBY', key, 'pairs', 1)
  return true
end

-- beyond reports whether a failed run may be kept beyond the chosen ones of its
-- pair, and counts it.
local function beyond(key, run, of)
  if not failed(run) or number(key, 'b:' .. of) >= part.max_bad then return false end
  local account = 'f:' .. redis.sha1hex(run.a)
  if number(key, account) >= part.max_bad_of_account then return false end
  redis.call('HINCRBY', key, 'b:' .. of, 1)
  redis.call('HINCRBY', key, account, 1)
  return true
end

-- chosen reports whether the run is kept.
local function chosen(key, id, run)
  local of = pair(run)
  local ids = redis.call('HGET', key, 'p:' .. of)
  if not ids then
    if not room(key, run) then return false end
    ids = ''
  end
  local at = place(ids, id)
  if string.sub(ids, at, at + 31) == id then return true end
  if at > 32 * part.max_runs then return beyond(key, run, of) end
  ids = string.sub(ids, 1, at - 1) .. id .. string.sub(ids, at)
  if #ids > 32 * part.max_runs then
    local last = string.sub(ids, -32)
    ids = string.sub(ids, 1, -33)
    local text = redis.call('HGET', key, 'r:' .. last)
    if not text or not beyond(key, wide(cjson.decode(text)), of) then
      redis.call('HDEL', key, 'r:' .. last)
      redis.call('PFADD', KEYS[2], last)
    end
  end
  redis.call('HSET', key, 'p:' .. of, ids)
  return true
end

-- begun returns the key of the earlier day on which the run began, and what is
-- known of it there.
local function begun(id, run)
  for i = 4, #KEYS do
    local text = redis.pcall('HGET', KEYS[i], 'r:' .. id)
    if type(text) == 'string' then
      local ok, was = pcall(cjson.decode, text)
      if ok then ok, was = pcall(wide, was) end
      if ok and run.f - (tonumber(was.l) or 0) <= part.idle and run.f - (tonumber(was.f) or 0) < part.longest then
        return KEYS[i], was
      end
      return nil
    end
  end
end

for _, run in ipairs(part.runs) do
  local id, key = run.id, KEYS[3]
  run = wide(run)
  local text, was, earlier = redis.call('HGET', key, 'r:' .. id), nil, nil
  if text then
    was = wide(cjson.decode(text))
  else
    earlier, was = begun(id, run)
    key = earlier or key
  end
  local keep
  if was then
    local before = pair(was)
    run = merge(was, run)
    keep = true
    if pair(run) ~= before then
      drop(key, id, before)
      keep = chosen(key, id, run)
    end
  else
    keep = chosen(key, id, run)
  end
  if keep then
    redis.call('HSET', key, 'r:' .. id, narrow(run))
  else
    redis.call('HDEL', key, 'r:' .. id)
    redis.call('PFADD', KEYS[2], id)
  end
end
redis.call('PEXPIREAT', KEYS[1], part.expire)
redis.call('PEXPIREAT', KEYS[2], part.expire_runs)
redis.call('PEXPIREAT', KEYS[3], part.expire_runs)
return 1
`)

// recordAccounts notes when accounts were used as evidence.Use.Merge says.
//
//	KEYS  accounts
//	ARGV  account, legacy, token, failed, reason, run, page; and again
//
// An account is kept as "<legacy> <token> <failed> <reason> <run> <page>".
var recordAccounts = redis.NewScript(`
for i = 1, #ARGV, 7 do
  local legacy, token, failed, reason, run, page = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
  local text = redis.call('HGET', KEYS[1], ARGV[i])
  if text then
    local l, t, f, r, last = string.match(text, '^(%d+) (%d+) (%d+) ([^ ]*)(.*)$')
    if l then
      if tonumber(l) > tonumber(legacy) then legacy = l end
      if tonumber(t) > tonumber(token) then token = t end
      if tonumber(f) >= tonumber(failed) then failed, reason = f, r end
      local u, p = string.match(last, '^ (%d+) (%d+)$')
      if u and tonumber(u) > tonumber(run) then run = u end
      if p and tonumber(p) > tonumber(page) then page = p end
    end
  end
  redis.call('HSET', KEYS[1], ARGV[i], legacy .. ' ' .. token .. ' ' .. failed .. ' ' .. reason .. ' ' .. run .. ' ' .. page)
end
return 1
`)
