#pragma once
/* First, so that what both take from the system's headers belongs to CLinux, as for everybody else. */
#include "../CLinux/shim.h"
#include <ares.h>
#include <arpa/nameser.h>
