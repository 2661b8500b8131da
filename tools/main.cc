#include "tools/command.h"

int main(int argc, char** argv) { return mirage::RunCommandLine({argv + 1, argv + argc}); }
