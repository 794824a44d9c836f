/* Prints a model's calibrated confidence in each of some labels, with llama.cpp's C API and edgecal's key.
 *
 *     cc confidence.c -I$LLAMA/include -L$LLAMA/lib -lllama -lm -Wl,-rpath,$LLAMA/lib -o confidence
 *     ./confidence chat.calibrated.gguf "Is this spam? ... Answer:" " yes" " no"
 *
 * $LLAMA is where llama.cpp is installed; with llama-cpp-python that is Python's site-packages folder. */
#include <llama.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 4096, MAX_LABELS = 26 };

/* What is left to divide the logits by: 1 in a baked file, and in one that is not calibrated. */
static float read_temperature(const struct llama_model * model) {
    char text[64];
    if (llama_model_meta_val_str(model, "edgecal.temperature", text, sizeof text) <= 0) {
        return 1.0f;
    }
    float temperature = strtof(text, NULL);
    return temperature > 0.0f ? temperature : 1.0f;
}

static void quiet(enum ggml_log_level level, const char * text, void * user) {
    (void) user;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

int main(int argc, char ** argv) {
    if (argc < 5 || argc - 3 > MAX_LABELS) {
        fprintf(stderr, "usage: %s MODEL PROMPT LABEL LABEL...\n", argv[0]);
        return 2;
    }
    llama_log_set(quiet, NULL);
    struct llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (model == NULL) {
        return 3;
    }
    const struct llama_vocab * vocab = llama_model_get_vocab(model);
    const float temperature = read_temperature(model);

    static llama_token tokens[MAX_TOKENS], joint[MAX_TOKENS];
    int n = llama_tokenize(vocab, argv[2], (int) strlen(argv[2]), tokens, MAX_TOKENS, true, true);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = MAX_TOKENS;
    struct llama_context * context = llama_init_from_model(model, params);
    if (n <= 0 || context == NULL || llama_decode(context, llama_batch_get_one(tokens, n)) != 0) {
        return 3;
    }
    const float * logits = llama_get_logits_ith(context, -1);

    const int n_labels = argc - 3;
    double scaled[MAX_LABELS], highest = -INFINITY, sum = 0.0;
    for (int i = 0; i < n_labels; i++) {
        /* A label's token is the one that it adds to the prompt's. */
        const size_t size = strlen(argv[2]) + strlen(argv[3 + i]) + 1;
        char * text = malloc(size);
        snprintf(text, size, "%s%s", argv[2], argv[3 + i]);
        const int m = llama_tokenize(vocab, text, (int) strlen(text), joint, MAX_TOKENS, true, true);
        free(text);
        if (m != n + 1 || memcmp(tokens, joint, sizeof(llama_token) * (size_t) n) != 0) {
            fprintf(stderr, "'%s' is not one token after this prompt\n", argv[3 + i]);
            return 2;
        }
        scaled[i] = logits[joint[n]] / temperature;
        highest = fmax(highest, scaled[i]);
    }
    for (int i = 0; i < n_labels; i++) {
        sum += exp(scaled[i] - highest);
    }
    for (int i = 0; i < n_labels; i++) {
        printf("%.4f%s\n", exp(scaled[i] - highest) / sum, argv[3 + i]);
    }
    llama_free(context);
    llama_model_free(model);
    return 0;
}
