# A null read in the C library, by way of ctypes.
import ctypes


def read_nothing():
    return ctypes.string_at(0)


read_nothing()
