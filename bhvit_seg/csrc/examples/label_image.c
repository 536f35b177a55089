/* Labels an image: label_image MODEL.bhv IMAGE.ppm LABELS.pgm [THREADS]
 *
 * Reads a binary PPM (three channels) or PGM (one) of 8 bits, writes class numbers as a PGM, and
 * prints the milliseconds that the fastest of five runs took.
 */
#include <bhvit_seg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const int kRuns = 5;

typedef struct {
  int width, height, channels;
  unsigned char* pixels; /* [height][width][channels] */
} image;

static double milliseconds(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

/* The next number of a header, in which comments run from # to the end of a line; -1 if there is
 * none. */
static int read_number(FILE* file) {
  int c = getc(file), number = -1;
  while (c == '#' || c == ' ' || c == '\t' || c == '\r' || c == '\n') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = getc(file);
    c = getc(file);
  }
  for (; c >= '0' && c <= '9' && number < 100000; c = getc(file))
    number = (number < 0 ? 0 : 10 * number) + c - '0';
  return number; /* what follows is one white space */
}

static int read_image(const char* path, image* to) {
  FILE* file = fopen(path, "rb");
  if (!file) return 0;
  const int p = getc(file), kind = getc(file);
  to->channels = kind == '6' ? 3 : 1;
  to->width = read_number(file);
  to->height = read_number(file);
  int whole = p == 'P' && (kind == '5' || kind == '6') && read_number(file) == 255 &&
              to->width > 0 && to->height > 0;
  if (whole) {
    const size_t size = (size_t)to->width * (size_t)to->height * (size_t)to->channels;
    to->pixels = malloc(size);
    whole = to->pixels && fread(to->pixels, 1, size, file) == size;
  }
  fclose(file);
  return whole;
}

static int write_labels(const char* path, const unsigned char* labels, int width, int height) {
  FILE* file = fopen(path, "wb");
  if (!file) return 0;
  const size_t size = (size_t)width * (size_t)height;
  fprintf(file, "P5\n%d %d\n255\n", width, height);
  const int whole = fwrite(labels, 1, size, file) == size;
  return fclose(file) == 0 && whole;
}

static int run(bhvit_model* model, const char* in, const char* out) {
  image picture = {0, 0, 0, NULL};
  unsigned char* labels = NULL;
  double best = 0;
  int status = 1;
  if (!read_image(in, &picture)) {
    fprintf(stderr, "error: %s is not a whole binary PPM or PGM of 8 bits\n", in);
  } else if (picture.channels != bhvit_channels(model)) {
    fprintf(stderr, "error: %s has %d channels, and the model takes %d\n", in, picture.channels,
            bhvit_channels(model));
  } else if ((labels = malloc((size_t)picture.width * (size_t)picture.height))) {
    status = 0;
    for (int i = 0; i < kRuns && !status; ++i) {
      const double start = milliseconds();
      status = bhvit_label(model, picture.pixels, BHVIT_UINT8, picture.height, picture.width,
                           labels) != 0;
      const double spent = milliseconds() - start;
      if (i == 0 || spent < best) best = spent;
    }
    if (status) {
      fprintf(stderr, "error: %s\n", bhvit_error());
    } else if (!write_labels(out, labels, picture.width, picture.height)) {
      fprintf(stderr, "error: %s cannot be written\n", out);
      status = 1;
    } else {
      printf("bhvit_seg %s, %s, threads: %d; %d x %d pixels, %d classes: %.1f ms\n",
             bhvit_version(), bhvit_instruction_set(model), bhvit_threads(model), picture.width,
             picture.height, bhvit_classes(model), best);
    }
  }
  free(labels);
  free(picture.pixels);
  return status;
}

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    fprintf(stderr, "usage: label_image MODEL.bhv IMAGE.ppm LABELS.pgm [THREADS]\n");
    return 2;
  }
  bhvit_model* model = bhvit_load(argv[1], argc > 4 ? atoi(argv[4]) : 0);
  if (!model) {
    fprintf(stderr, "error: %s\n", bhvit_error());
    return 1;
  }
  const int status = run(model, argv[2], argv[3]);
  bhvit_free(model);
  return status;
}
