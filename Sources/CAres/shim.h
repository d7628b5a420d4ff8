#pragma once
#include <ares.h>
#include <arpa/nameser.h>
