// Reads the token usage from a response as it passes, and settles the request's reservation with it. Only numbers
// leave this file, never text of a response.

// A larger JSON response, or a longer line of a stream, is not read: its request keeps the estimate.
const MAX_BYTES = 1048576;

// Each request has its own copy of these variables.
let input_tokens;
let output_tokens;
let pieces = [];  // what was read and not parsed yet
let size = 0;     // its bytes

// Passes each piece of the response on at once, and keeps a copy until it is parsed.
function read_usage(r, data, flags) {
    r.sendBuffer(data, flags);
    const type = String(r.headersOut['Content-Type'] || '');
    const is_stream = type.indexOf('text/event-stream') == 0;
    if (!is_stream && type.indexOf('application/json') != 0) {
        r.done();
        return;
    }
    pieces.push(Buffer.from(data));
    size += data.length;
    if (is_stream && (flags.last || data.indexOf(10) >= 0)) {
        read_events();
    } else if (flags.last) {
        read_json(take_text());
    }
    if (size > MAX_BYTES) {
        take_text();
        r.done();
    }
}

function take_text() {
    const text = Buffer.concat(pieces).toString();
    pieces = [];
    size = 0;
    return text;
}

// Of a stream, the last event that tells the usage counts: `stream_options: {"include_usage": true}`.
function read_events() {
    const lines = take_text().split('\n');
    lines.forEach((line) => {
        if (line.indexOf('data:') == 0 && line.indexOf('"usage"') > 0) {
            read_json(line.slice(5));
        }
    });
    // The last line may go on in the next piece. A character that was cut is spoilt, but only numbers are read.
    const rest = Buffer.from(lines[lines.length - 1]);
    pieces = [rest];
    size = rest.length;
}

// Takes what `usage` says: `prompt_tokens` and `completion_tokens`, or `input_tokens` and `output_tokens`.
function read_json(text) {
    let usage;
    try {
        usage = JSON.parse(text).usage;
    } catch (e) {
        return;  // not JSON, or cut off
    }
    if (usage) {
        input_tokens = first_count(usage.prompt_tokens, usage.input_tokens, input_tokens);
        output_tokens = first_count(usage.completion_tokens, usage.output_tokens, output_tokens);
    }
}

function first_count(a, b, c) {
    return [a, b, c].find((value) => Number.isInteger(value) && value >= 0);
}

// Puts the settlement into the queue. Without token counts, for example when the client closed the connection, the
// estimate stays charged: a client must not get its tokens back by that.
function queue_settlement(r) {
    const reservation = r.variables.ratelimit_reservation;
    if (!reservation) {
        return '';  // not asked, denied, or failed open
    }
    const settlement = {
        reservation: reservation,
        input_tokens: input_tokens,
        output_tokens: output_tokens,
        status: Number(r.variables.status) || undefined,
        latency_ms: Math.round(Number(r.variables.request_time) * 1000),
    };
    try {
        ngx.shared.ratelimit_settlements.set(reservation, JSON.stringify(settlement));
    } catch (e) {
        r.error('a settlement is lost: the queue is full');
        return 'lost';
    }
    return 'queued';
}

// Sends what is in the queue, 64 at a time, until it is empty, half of the interval is over, or one cannot be sent.
async function send_settlements(session) {
    const queue = ngx.shared.ratelimit_settlements;
    const started = Date.now();
    while (queue.size() > 0 && Date.now() - started < 500) {
        const sent = await Promise.all(queue.items(64).map((item) => send(session, queue, item)));
        if (sent.indexOf(false) >= 0) {
            return;  // the sidecar or the store is down: again in the next run
        }
    }
}

async function send(session, queue, item) {
    const headers = {'Content-Type': 'application/json'};
    if (session.variables.ratelimit_gateway_token) {
        headers['X-RateLimit-Gateway-Token'] = session.variables.ratelimit_gateway_token;
    }
    try {
        const url = session.variables.ratelimit_settle_url;
        const answer = await ngx.fetch(url, {method: 'POST', headers: headers, body: item[1]});
        if (answer.status >= 500) {
            return false;
        }
        if (answer.status != 200) {
            ngx.log(ngx.ERR, `a settlement was refused with status ${answer.status}`);
        }
    } catch (e) {
        return false;
    }
    queue.delete(item[0]);
    return true;
}

export default {read_usage, queue_settlement, send_settlements};
