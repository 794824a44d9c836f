# Read by the build of llama-cpp-python right after its project(); the Makefile says so in CMAKE_ARGS.
#
# llama-cpp-python forces llama.cpp's library for command-line programs into the build (downloads, chat parsers, an HTTP
# client), though its Python code never loads it. A normal variable comes before the cache entry that it forces.
set(LLAMA_BUILD_COMMON OFF)
