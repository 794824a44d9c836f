#!/bin/sh
# Shows what llama.cpp's own programs do with a calibrated file.
#
#     ./llama_tools.sh chat.calibrated.gguf "Question ... Answer:"
#
# Needs llama-server and llama-completion (in the PATH, or in the folder $LLAMA_BIN) and curl.
set -eu
model=$1
prompt=$2
port=${PORT:-8123}
PATH=${LLAMA_BIN:+$LLAMA_BIN:}$PATH

# The file's general.sampling.temp is the default; --temp on the command line would override it.
printf 'one sampled token:'
llama-completion --model "$model" --prompt "$prompt" --n-predict 1 --samplers temperature --seed 1 \
    --no-conversation --no-display-prompt --no-warmup 2>/dev/null </dev/null
echo

llama-server --model "$model" --port "$port" --no-warmup >/dev/null 2>&1 &
server=$!
trap 'kill "$server"; wait "$server" || true' EXIT
until curl --silent --fail "http://127.0.0.1:$port/health" >/dev/null; do
    kill -0 "$server" # fails if the server could not start
    sleep 0.1
done

printf 'sampling temperature: '
curl --silent "http://127.0.0.1:$port/props" | grep -o '"temperature":[0-9.]*' | head -n 1 | cut -d : -f 2

# Reported log-probabilities are those of the file's own logits, so they are calibrated only in a baked file.
printf 'log-probability of the likeliest token: '
escaped=$(printf %s "$prompt" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e ':a' -e 'N' -e '$!ba' -e 's/\n/\\n/g')
curl --silent "http://127.0.0.1:$port/completion" --header 'Content-Type: application/json' \
    --data "{\"prompt\": \"$escaped\", \"n_predict\": 1, \"n_probs\": 1, \"temperature\": 0}" |
    grep -o '"logprob":[-0-9.e]*' | head -n 1 | cut -d : -f 2
