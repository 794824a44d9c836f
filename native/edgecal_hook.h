/* Copies the residual stream of chosen tokens out of llama.cpp while it computes.
 *
 * An eval callback for llama.cpp recognises the tensors named `<name>-<il>` (the residual stream after block il;
 * most models call it `l_out`), checks them, and copies the wanted tokens into a float32 array
 * [n_prompts, n_layer, n_streams * n_embd] that the caller owns.
 *
 * It does not depend on ggml's or llama.cpp's headers and struct layouts, so that it works with any build: tensors
 * are opaque, and everything is asked through functions whose addresses the caller passes. There are no globals:
 * every context has its own capture object, so several models can run at once.
 *
 * One decode: edgecal_capture_plan(), then the decode with edgecal_capture_eval() as its callback, then
 * edgecal_capture_finish(). Nothing inside the callback allocates, exits or raises; the first error there is kept,
 * and edgecal_capture_finish() reports it.
 */
#ifndef EDGECAL_HOOK_H
#define EDGECAL_HOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EDGECAL_API __declspec(dllexport)
#elif defined(__GNUC__)
#define EDGECAL_API __attribute__((visibility("default")))
#else
#define EDGECAL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Incremented whenever a signature, a struct or a code below changes; the loader compares it. */
#define EDGECAL_HOOK_ABI 2

struct ggml_tensor; /* opaque, and never defined here */

typedef struct edgecal_capture edgecal_capture;

/* Addresses of llama.cpp's exported functions of the same names. */
typedef struct edgecal_getters {
    const char *(*get_name)(const struct ggml_tensor *tensor);
    int64_t (*nrows)(const struct ggml_tensor *tensor);
    size_t (*nbytes)(const struct ggml_tensor *tensor);
    size_t (*element_size)(const struct ggml_tensor *tensor);
    bool (*is_contiguous)(const struct ggml_tensor *tensor);
    void (*tensor_get)(const struct ggml_tensor *tensor, void *data, size_t offset, size_t size);
} edgecal_getters;

/* How a model lays out the residual stream after a block. A token has n_streams rows of n_embd floats. They are
 * adjacent or, with `by_stream`, all tokens of one stream come before those of the next. */
typedef struct edgecal_residual {
    const char *name; /* the part before the hyphen and the block's number; copied */
    int32_t n_embd;
    int32_t n_streams;
    bool by_stream;
} edgecal_residual;

/* One token whose residual stream is wanted. */
typedef struct edgecal_row {
    int32_t token_row;  /* its row among all tokens of its micro-batch */
    int32_t output_row; /* its row among the tokens whose logits were requested, or -1 if it is not one of them */
    int32_t prompt;     /* which [n_layer, n_streams * n_embd] of the destination it fills */
} edgecal_row;

/* One micro-batch, in the order of computation. Its wanted rows are rows[row_begin .. row_end). */
typedef struct edgecal_microbatch {
    int32_t n_tokens;
    int32_t n_outputs;
    int32_t row_begin;
    int32_t row_end;
} edgecal_microbatch;

enum edgecal_code {
    EDGECAL_OK = 0,
    EDGECAL_NOT_CONTIGUOUS = 1, /* the tensor is not contiguous */
    EDGECAL_ELEMENT_SIZE = 2,   /* its elements are not 4 bytes (float32) */
    EDGECAL_ROW_SIZE = 3,       /* its bytes are not rows * n_embd * 4 */
    EDGECAL_ROW_COUNT = 4,      /* its rows are not those of the micro-batch */
    EDGECAL_BLOCK_MISSING = 5,  /* a block was skipped, or the decode ended before it */
    EDGECAL_BLOCK_REPEATED = 6, /* a block was repeated, or came after everything planned */
    EDGECAL_BLOCK_BEYOND = 7,   /* a block number that the model does not have */
    EDGECAL_NO_OUTPUT_ROW = 8,  /* the last block holds only output rows, and the wanted token is not one */
    EDGECAL_UNEXPECTED = 9      /* llama.cpp passed a tensor that was not requested */
};

/* The error, or code 0. Sizes that do not apply are -1. */
typedef struct edgecal_report {
    int32_t code;
    int32_t block;
    int32_t microbatch;
    int32_t n_microbatches;    /* planned */
    int64_t got_rows;
    int64_t got_bytes;
    int64_t got_element_bytes;
    int64_t expected_rows;     /* tokens of the micro-batch, times n_streams */
    int64_t expected_outputs;  /* outputs of the micro-batch, times n_streams */
    int64_t expected_row_bytes;
} edgecal_report;

EDGECAL_API int32_t edgecal_hook_abi(void);

/* A capture object for a model of n_layer blocks. NULL if a size is not positive, the name is empty or longer
 * than 31 bytes, a getter is missing or memory is short. */
EDGECAL_API edgecal_capture *edgecal_capture_new(const edgecal_getters *getters, int32_t n_layer,
                                                 const edgecal_residual *residual);

/* Frees the object; NULL is allowed. */
EDGECAL_API void edgecal_capture_free(edgecal_capture *capture);

/* Prepares one decode and forgets the previous one. `destination` is float32 [n_prompts, n_layer,
 * n_streams * n_embd] and `captured` uint8 [n_prompts, n_layer]; the caller owns both and keeps them until the
 * decode is over. The other arrays are copied. A flag in `captured` is set to 1 once its row has been copied, and
 * never cleared. False, with nothing planned, if the plan contradicts itself or memory is short. */
EDGECAL_API bool edgecal_capture_plan(edgecal_capture *capture, float *destination, uint8_t *captured,
                                      int32_t n_prompts, const edgecal_microbatch *microbatches,
                                      int32_t n_microbatches, const edgecal_row *rows, int32_t n_rows);

/* llama.cpp's eval callback; `user` is the capture object. It is called with `ask` for every graph node, returns
 * whether it wants that node, and is called again for wanted nodes once computed. Never stops the computation. */
EDGECAL_API bool edgecal_capture_eval(struct ggml_tensor *tensor, bool ask, void *user);

/* Ends the decode: fills the report and returns its code. After that the destination is not touched. */
EDGECAL_API int32_t edgecal_capture_finish(edgecal_capture *capture, edgecal_report *report);

#ifdef __cplusplus
}
#endif

#endif
