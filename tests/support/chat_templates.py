"""Chat templates of the shapes that are about, written for the tests."""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Qwen3: a block of thoughts that is closed where thinking is not wanted.
CHATML_THINKING = CHATML.removesuffix("{% endif %}") + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# As DeepSeek-R1 by way of ChatML: a block of thoughts that is opened whatever is wanted.
CHATML_ALWAYS_THINKING = CHATML.removesuffix("{% endif %}") + "<think>\n{% endif %}"
CHATML_UNOPENED = CHATML.partition("{% if add_generation_prompt %}")[0]
LLAMA_3 = """\
{{- bos_token }}
{%- if strftime_now is defined %}
    {%- set today = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages[0].role == "system" %}
    {%- set system = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + today + "\\n\\n" + system + "<|eot_id|>" }}
{%- for message in messages %}
    {{- "<|start_header_id|>" + message.role + "<|end_header_id|>\\n\\n" + message.content | trim + "<|eot_id|>" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}
{%- endif %}
"""
GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role here') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must take turns') }}
{% endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<start_of_turn>model\n' }}
{%- endif %}
"""
LLAMA_2 = """\
{% for message in messages %}
    {%- if message.role == 'user' %}
        {{- bos_token + '[INST] ' + message.content.strip() + ' [/INST]' }}
    {%- elif message.role == 'assistant' %}
        {{- ' ' + message.content.strip() + ' ' + eos_token }}
    {%- else %}
        {{- raise_exception('Only user and assistant may speak') }}
    {%- endif %}
{%- endfor %}
"""
PHI_3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
DEEPSEEK = """\
{%- set ns = namespace(first=true) -%}
{{ bos_token }}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '<｜User｜>' + message['content'] -}}
    {%- elif message['role'] == 'assistant' -%}
        {%- generation -%}
        {{- '<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>' -}}
        {%- endgeneration -%}
    {%- else -%}
        {%- continue -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}
"""
# As gpt-oss: the turn is opened, but an answer stands in a channel.
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
    "<|message|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# As RWKV's and DeepSeek LLM's: no marks, plain words.
RWKV = (
    "{% for m in messages %}{{ 'User: ' if m.role == 'user' else 'Assistant: ' }}{{ m.content | trim }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# As Mistral's newer ones: nothing is asked for, and nothing stands between the mark and the answer.
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)

CHAT_TEMPLATES = {
    "chatml": CHATML,
    "chatml thinking": CHATML_THINKING,
    "chatml always thinking": CHATML_ALWAYS_THINKING,
    "chatml unopened": CHATML_UNOPENED,
    "llama 3": LLAMA_3,
    "gemma": GEMMA,
    "llama 2": LLAMA_2,
    "phi 3": PHI_3,
    "deepseek": DEEPSEEK,
    "channels": CHANNELS,
    "rwkv": RWKV,
    "mistral": MISTRAL,
}
