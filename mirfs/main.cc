#include "mirfs/mount.h"

int main(int argc, char** argv) { return mirage::RunMirfs(argc, argv); }
