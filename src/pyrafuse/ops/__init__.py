"""Pure box mathematics: conversion, overlap, decoding, suppression."""
