/* Stand-ins for TensorRT's libraries, so that its Python bindings can be imported and called without them.

   The bindings take ten C entry points from the libraries; everything else goes through virtual functions. Here every
   object is one object, whose words point at itself and whose virtual functions all return it. Its address is fixed
   and small, so that it is a valid pointer, a positive integer and true; as text it is empty. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#define START 0x100000
#define BYTES 0x100000
#define FUNCTIONS 1024
#define WORDS 64

static void **const object = (void **)(START + 0x40);
static void **const table = (void **)(START + 0x10000);

static void *return_the_object(void) { return object; }

__attribute__((constructor)) static void make_the_object(void) {
    void *memory = mmap((void *)START, BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory != (void *)START) abort();
    for (int i = 0; i < FUNCTIONS; i++) table[i] = (void *)return_the_object;
    object[0] = table;
    for (int i = 1; i < WORDS; i++) object[i] = object;
}

#define ENTRY(name) void *name(void) { return object; }
ENTRY(createInferBuilder_INTERNAL)
ENTRY(createInferRefitter_INTERNAL)
ENTRY(createInferRuntime_INTERNAL)
ENTRY(createNvOnnxParser_INTERNAL)
ENTRY(createNvOnnxParserRefitter_INTERNAL)
ENTRY(getBuilderPluginRegistry)
ENTRY(getPluginRegistry)
ENTRY(getNvOnnxParserVersion)
ENTRY(getInferLibVersion)
ENTRY(initLibNvInferPlugins)
