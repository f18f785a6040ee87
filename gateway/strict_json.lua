-- Refuses bodies with fields that their call does not know. Envoy's transcoder drops those without a word
-- (https://github.com/envoyproxy/envoy/issues/46623), and who misspells `approvals` would not be asked.
-- Only names are looked at, in JSON that is well formed; all else is left to the transcoder.
-- CALLS: {{method, pattern of the path, fields}, ...}; fields: {name = fields of a message, or true for what has none of its own}.

local QUOTE, OPEN, CLOSE, LIST, END, COLON, COMMA = 34, 123, 125, 91, 93, 58, 44

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
    elseif byte == CLOSE or byte == END then
      depth, at = depth - 1, at + 1
    else
      at = text:find('["%[%]{},]', at + 1)
    end
    if not at then return nil end
    -- Commas and blanks between the values of what is open.
    if depth > 0 then at = text:find('[^%s,:]', at) end
  until not at or depth == 0
  return at
end

-- (place behind the value, or nil), (the first unknown name, or nil)
local function check(text, at, fields, scope)
  at = text:find('%S', at)
  local byte = at and text:byte(at)
  if byte == LIST and fields ~= true then
    at = text:find('%S', at + 1)
    while at and text:byte(at) == OPEN do
      local unknown
      at, unknown = check(text, at, fields, scope)
      if not at then return nil, unknown end
      at = text:find('[^%s,]', at)
    end
    return at and text:byte(at) == END and at + 1 or nil
  end
  if byte ~= OPEN or fields == true then return at and after_value(text, at) end
  at = text:find('%S', at + 1)
  while at and text:byte(at) == QUOTE do
    local behind = after_string(text, at)
    if not behind then return nil end
    local name = text:sub(at + 1, behind - 2)
    local known, unknown = fields[name], nil
    if known == nil then return nil, scope .. name end
    at = text:find('%S', behind)
    if not at or text:byte(at) ~= COLON then return nil end
    at, unknown = check(text, at + 1, known, scope .. name .. '.')
    if not at then return nil, unknown end
    at = text:find('%S', at)
    if at and text:byte(at) == COMMA then at = text:find('%S', at + 1) end
  end
  return at and text:byte(at) == CLOSE and at + 1 or nil
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local method, path = headers:get(':method'), headers:get(':path'):match('^[^?]*')
  for _, call in ipairs(CALLS) do
    if method == call[1] and path:match(call[2]) then
      local body = handle:body()
      local _, unknown = check(body and body:getBytes(0, body:length()) or '', 1, call[3], '')
      if unknown then
        handle:respond({[':status'] = '400'}, unknown:sub(1, 100):gsub('[^%w_.-]', '?') .. ': there is no such field')
      end
      return
    end
  end
end
