/* bhvit_seg: packed segmentation models, from C (docs/c.md).
 *
 * A function that fails says why in bhvit_error(). Functions may be called from several threads,
 * and calls with one model take turns.
 */
#ifndef BHVIT_SEG_H
#define BHVIT_SEG_H

#include <stdint.h>

#if defined(__GNUC__)
#define BHVIT_API __attribute__((visibility("default")))
#else
#define BHVIT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bhvit_model bhvit_model;

/* What the values of an image are. */
typedef enum { BHVIT_UINT8 = 0, BHVIT_FLOAT32 = 1 } bhvit_type;

/* The version of the library, such as "0.1.0". */
BHVIT_API const char* bhvit_version(void);

/* One sentence about the last failure in this thread; "" if there was none. It stays until the
 * next failure. */
BHVIT_API const char* bhvit_error(void);

/* Loads a file of `bhvit-seg export`. `threads`: how many compute, 1 to 256; 0: one for each core.
 * The environment variable BHVIT_ISA chooses the instruction set, by default the best. Returns
 * NULL on failure. The file is not needed afterwards. */
BHVIT_API bhvit_model* bhvit_load(const char* path, int threads);

/* Frees a model, or does nothing with NULL. */
BHVIT_API void bhvit_free(bhvit_model* model);

/* What a model is; -1 or NULL for a NULL. Texts live as long as the model. */
BHVIT_API int bhvit_channels(const bhvit_model* model);
BHVIT_API int bhvit_classes(const bhvit_model* model);
BHVIT_API int bhvit_threads(const bhvit_model* model);
BHVIT_API const char* bhvit_instruction_set(const bhvit_model* model);
BHVIT_API const char* bhvit_meta(const bhvit_model* model); /* JSON: classes, palette, ... */

/* Labels of an image, [height][width], 0 to classes - 1. The image is [height][width][channels],
 * red first, not normalised, in the value range of the training images; at least 4x4 pixels. Sides
 * that are no multiples of 32 are mirrored up to one. Returns 0, or -1 on failure. */
BHVIT_API int bhvit_label(bhvit_model* model, const void* image, bhvit_type type, int height,
                          int width, uint8_t* labels);

/* Scores at a quarter of the image's size, [classes][(height + 3) / 4][(width + 3) / 4]. Returns 0,
 * or -1 on failure. */
BHVIT_API int bhvit_logits(bhvit_model* model, const void* image, bhvit_type type, int height,
                           int width, float* logits);

/* Whether this processor computes what it should: compares the chosen kernels with plain ones, to
 * the bit, on small networks. Returns 0, or -1 if they differ. */
BHVIT_API int bhvit_self_test(void);

#ifdef __cplusplus
}
#endif

#endif
