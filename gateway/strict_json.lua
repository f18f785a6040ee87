-- Refuses what the transcoder would let pass.
-- Fields that a call does not know: it drops those without a word (https://github.com/envoyproxy/envoy/issues/46623), and who misspells
-- `approvals` would not be asked. Only names are looked at. The transcoder reads more than JSON, such as 'x' and names without quotes: here
-- all that is not JSON is refused, so that both see the same names. What ends too early is left to the transcoder, and so are the values.
-- Methods that a path does not have: to the transcoder it would be an unknown path.
-- Large bodies of who has no key: it would keep them.
-- PATHS: {{pattern, allow, methods = {method = fields, or false for a call without a body}}, ...}; fields: {name = fields of a message, or
-- true for what has none of its own, 'values' for a list of such}.

local QUOTE, OPEN, CLOSE, LIST, END, COLON, COMMA = 34, 123, 125, 91, 93, 58, 44

-- All that follow: (place behind what is at `at`, or nil), (what is wrong with it, or nil)

local function misplaced(at)
  return nil, at and 'byte ' .. at .. ' of the body is not what belongs there'
end

local function after_string(text, at)
  at = at + 1
  while true do
    local found = text:find('["\\]', at)
    if not found then return nil end
    if text:byte(found) == QUOTE then return found + 1 end
    at = found + 2
  end
end

local function after_value(text, at)
  local depth = 0
  repeat
    local byte = text:byte(at)
    if byte == QUOTE then
      at = after_string(text, at)
    elseif byte == OPEN or byte == LIST then
      depth, at = depth + 1, at + 1
    elseif depth > 0 and (byte == CLOSE or byte == END) then
      depth, at = depth - 1, at + 1
    else
      local _, last = text:find('^[%w.+-]+', at)
      if not last then return misplaced(at) end
      at = last + 1
    end
    -- Commas and blanks between the values of what is open.
    if at and depth > 0 then at = text:find('[^%s,:]', at) end
  until not at or depth == 0
  return at
end

local check

local function after_list(text, at, fields, scope)
  local wrong
  at = text:find('[^%s,]', at + 1)
  while at and text:byte(at) ~= END do
    if text:byte(at) == LIST or text:find('^null', at) then return misplaced(at) end
    at, wrong = check(text, at, fields, scope)
    if not at then return nil, wrong end
    at = text:find('[^%s,]', at)
  end
  return at and at + 1
end

-- The transcoder takes a value alone for a list of one, and a list in a list for its values.
local function after_values(text, at)
  local wrong
  at = text:find('[^%s,]', at + 1)
  while at and text:byte(at) ~= END do
    if text:byte(at) == LIST or text:byte(at) == OPEN or text:find('^null', at) then return misplaced(at) end
    at, wrong = after_value(text, at)
    if not at then return nil, wrong end
    at = text:find('[^%s,]', at)
  end
  return at and at + 1
end

local function after_message(text, at, fields, scope)
  local wrong
  at = text:find('%S', at + 1)
  while at and text:byte(at) == QUOTE do
    local behind = after_string(text, at)
    if not behind then return nil end
    local name = text:sub(at + 1, behind - 2)
    local known = fields[name]
    if known == nil then return nil, (scope .. name):sub(1, 100):gsub('[^%w_.-]', '?') .. ': there is no such field' end
    at = text:find('%S', behind)
    if not at or text:byte(at) ~= COLON then return misplaced(at) end
    at, wrong = check(text, at + 1, known, scope .. name .. '.')
    if not at then return nil, wrong end
    at = text:find('%S', at)
    if at and text:byte(at) == COMMA then at = text:find('%S', at + 1) end
  end
  if not at or text:byte(at) ~= CLOSE then return misplaced(at) end
  return at + 1
end

function check(text, at, fields, scope)
  at = text:find('%S', at)
  if not at then return nil end
  if fields == true then return after_value(text, at) end
  if fields == 'values' and text:byte(at) == LIST then return after_values(text, at) end
  if fields ~= 'values' and text:byte(at) == OPEN then return after_message(text, at, fields, scope) end
  if fields ~= 'values' and text:byte(at) == LIST then return after_list(text, at, fields, scope) end
  if text:find('^null', at) then return at + 4 end
  return misplaced(at)
end

-- A status for who shows no key that the server knows; nil for all others.
local function refusal(handle)
  local asked = {
    [':method'] = 'POST', [':path'] = '/treadle.gateway/CheckKey', [':authority'] = 'gateway', ['content-type'] = 'application/grpc',
    te = 'trailers', authorization = handle:headers():get('authorization'),
  }
  local told = handle:httpCall('server', asked, '', 5000)
  -- A call that failed has its gRPC status here, and one that went well behind its answer.
  if told[':status'] == '200' and not told['grpc-status'] then return nil end
  return told['grpc-status'] == '16' and '401' or '503'
end

local function refuse_unknown(handle, fields)
  -- A body is held here until it is whole. A small one costs less than the question who calls.
  local length = tonumber(handle:headers():get('content-length'))
  if not length or length > MAX_STRANGER_BYTES then
    local status = refusal(handle)
    if status then return handle:respond({[':status'] = status}, '') end
  end
  local body = handle:body()
  local text = body and body:getBytes(0, body:length()) or ''
  local at, wrong = check(text, 1, fields, '')
  if at then at, wrong = misplaced(text:find('%S', at)) end
  if wrong then handle:respond({[':status'] = '400'}, wrong) end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(':path'):match('^[^?]*')
  for _, known in ipairs(PATHS) do
    if path:match(known.pattern) then
      local fields = known.methods[headers:get(':method')]
      if fields == nil then return handle:respond({[':status'] = '405', allow = known.allow}, '') end
      if fields then refuse_unknown(handle, fields) end
      return
    end
  end
end
