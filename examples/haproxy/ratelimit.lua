-- Asks the rate-limit sidecar whether a request may pass: `http-request lua.ratelimit` in haproxy.cfg.
-- core.httpclient waits without blocking: HAProxy serves other requests meanwhile. The body is not sent.

local CHECKS = "abns@ratelimit-checks" -- the frontend `checks` of haproxy.cfg
local FAILS_OPEN = true -- false: 503 while the sidecar is down or too slow

-- What the client gets of an answer that does not let its request pass.
local SHOWN = { "content-type", "ratelimit", "ratelimit-policy", "retry-after", "www-authenticate" }

-- What haproxy.cfg gets of an answer that does, by variable.
local REMEMBERED = {
    ["txn.ratelimit_key"] = "x-ratelimit-key",
    ["txn.ratelimit_reservation"] = "x-ratelimit-reservation",
    ["txn.ratelimit_state"] = "ratelimit",
    ["txn.ratelimit_policy"] = "ratelimit-policy",
}

-- The id in a path such as /models/qwen3-4b/chat, decoded and without `..`, or nil. Without one, the class "other" applies.
local function find_model(path)
    local segments = {}
    path = path:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
    for segment in path:gmatch("[^/]+") do
        if segment == ".." then
            table.remove(segments)
        elseif segment ~= "." then
            table.insert(segments, segment)
        end
    end
    local has_more = #segments > 2 or path:sub(-1) == "/"
    if segments[1] == "models" and has_more and segments[2] and segments[2]:match("^[%w_.:-]+$") then
        return segments[2]
    end
end

-- The value of a header, or nil. HAProxy gives headers as lists that start at 0.
local function first(headers, name)
    return headers and headers[name] and headers[name][0]
end

local function ask(txn)
    local headers = {
        ["host"] = { "sidecar" },
        -- The sidecar must trust this HAProxy: `--trusted-proxies 127.0.0.1`.
        ["x-forwarded-for"] = { txn.f:src() },
        ["x-ratelimit-request-id"] = { txn:get_var("txn.ratelimit_id") },
    }
    local function add(name, value)
        if value and value ~= "" then
            headers[name] = { value }
        end
    end
    -- Send only the header that your API authenticates by. With both, a client could change the one that the API
    -- ignores, and be another key in every request.
    add("authorization", txn.sf:req_fhdr("authorization"))
    -- add("x-api-key", txn.sf:req_fhdr("x-api-key"))
    add("x-ratelimit-model", find_model(txn.sf:path()))
    add("x-ratelimit-cost", txn:get_var("txn.ratelimit_cost"))
    -- Only if the API settles with the reservation that it gets: unsettled slots stay taken until their ttl.
    -- add("x-ratelimit-reserve", "?1")
    -- With `--gateway-token`: add("x-ratelimit-gateway-token", os.getenv("RATELIMIT_GATEWAY_TOKEN"))
    return core.httpclient():get({ url = "http://sidecar/v1/authorize", dst = CHECKS, headers = headers })
end

-- What an answer means. 502 and 504 come from HAProxy itself: the sidecar is down or too slow. A 503 with a problem
-- document comes from the sidecar: the policy says `on_outage: deny`. Nothing that a client can cause may end in
-- `failed-open`: that would be a way around the limits.
local function judge(status, headers)
    if status >= 200 and status < 300 then
        return "allowed"
    elseif status == 429 then
        return "denied"
    elseif status == 503 and (first(headers, "content-type") or ""):find("application/problem+json", 1, true) then
        return "unavailable"
    elseif status >= 500 then
        return "failed-open"
    elseif status == 400 or status == 413 or status == 414 or status == 422 or status == 431 then
        return "malformed"
    elseif status == 401 and (first(headers, "www-authenticate") or ""):find("Bearer", 1, true) then
        return "unknown-key" -- the policy says `unknown_keys: deny`, or has no plan `anonymous`
    end
    -- 401, 403, 404: wrong token or wrong address. 0: the check could not be sent at all, such as a header that fills
    -- HAProxy's buffer; a client can cause it.
    return "misconfigured"
end

-- Ends the request with a status, headers and a body.
local function refuse(txn, status, headers, body)
    local reply = txn:reply({ status = status, body = body })
    for _, name in ipairs(SHOWN) do
        local value = first(headers, name)
        if value then
            reply:add_header(name, value)
        end
    end
    txn:done(reply)
end

core.register_action("ratelimit", { "http-req" }, function(txn)
    local answer = ask(txn)
    local headers = answer.headers
    local verdict = judge(answer.status or 0, headers)
    txn:set_var("txn.ratelimit", verdict)
    if verdict == "allowed" then
        for variable, name in pairs(REMEMBERED) do
            local value = first(headers, name)
            if value then
                txn:set_var(variable, value)
            end
        end
    elseif verdict == "failed-open" then
        if not FAILS_OPEN then
            refuse(txn, 503)
        end
    elseif verdict == "misconfigured" then
        refuse(txn, 500)
    else
        refuse(txn, answer.status, headers, answer.body)
    end
end, 0)
