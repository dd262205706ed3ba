// A photo before it is sent: made small, and judged as inference/photo_quality.py judges it, by the same numbers. Knows no form.
"use strict";
const Photo = (() => {
  // The mean of the pixels below each new one, one direction at a time: Pillow's box filter.
  const boxed = (from, width, height, toWidth, toHeight) => {
    const wide = new Float32Array(toWidth * height * 3);
    for (let x = 0; x < toWidth; x += 1) {
      const scale = width / toWidth;
      const low = Math.max(0, Math.floor((x + 0.5) * scale - scale / 2 + 0.5));
      const high = Math.max(low + 1, Math.min(width, Math.floor((x + 0.5) * scale + scale / 2 + 0.5)));
      for (let y = 0; y < height; y += 1) {
        let red = 0, green = 0, blue = 0;
        for (let at = (y * width + low) * 4, end = (y * width + high) * 4; at < end; at += 4) { red += from[at]; green += from[at + 1]; blue += from[at + 2]; }
        const to = (y * toWidth + x) * 3, n = high - low;
        wide[to] = red / n; wide[to + 1] = green / n; wide[to + 2] = blue / n;
      }
    }
    const small = new Float32Array(toWidth * toHeight * 3);
    for (let y = 0; y < toHeight; y += 1) {
      const scale = height / toHeight;
      const low = Math.max(0, Math.floor((y + 0.5) * scale - scale / 2 + 0.5));
      const high = Math.max(low + 1, Math.min(height, Math.floor((y + 0.5) * scale + scale / 2 + 0.5)));
      for (let at = 0; at < toWidth * 3; at += 1) {
        let sum = 0;
        for (let row = low; row < high; row += 1) sum += wide[row * toWidth * 3 + at];
        small[y * toWidth * 3 + at] = Math.round(sum / (high - low));
      }
    }
    return small;
  };

  const percentile = (sorted, percent) => {
    const place = (sorted.length - 1) * percent / 100, low = Math.floor(place), high = Math.min(low + 1, sorted.length - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
  };

  const sharpness = (luma, width, height, [grey, least]) => {
    if (width < 3 || height < 3) return 0;
    let n = 0, light = 0, sum = 0, squares = 0;
    for (let y = 1; y < height - 1; y += 1) {
      for (let x = 1; x < width - 1; x += 1) {
        const at = y * width + x;
        const edge = luma[at - width] + luma[at + width] + luma[at - 1] + luma[at + 1] - 4 * luma[at];
        n += 1; light += luma[at]; sum += edge; squares += edge * edge;
      }
    }
    const relative = Math.max(light / n / grey, least);
    return (squares / n - (sum / n) ** 2) / relative ** 2;
  };

  // `image`: ImageData; `sides`: width and height of the original; `gate`: the page's numbers. Gives what is wrong, by code.
  const judge = (image, sides, gate) => {
    const shrink = Math.min(1, gate.judged_side / Math.max(image.width, image.height));
    const width = Math.max(1, Math.round(image.width * shrink)), height = Math.max(1, Math.round(image.height * shrink));
    const pixels = boxed(image.data, image.width, image.height, width, height);
    const luma = new Float32Array(width * height);
    let skin = 0;
    for (let at = 0; at < luma.length; at += 1) {
      const red = pixels[3 * at], green = pixels[3 * at + 1], blue = pixels[3 * at + 2];
      luma[at] = gate.luma[0] * red + gate.luma[1] * green + gate.luma[2] * blue;
      if (red > gate.skin[0] * blue && red > gate.skin[1] * green && red > gate.skin[2]) skin += 1;
    }
    const sorted = luma.slice().sort();
    const wrong = [];
    if (Math.min(...sides) < gate.least_side) wrong.push("too_small");
    if (percentile(sorted, gate.dark[0]) < gate.dark[1]) wrong.push("too_dark");
    else if (percentile(sorted, gate.bright[0]) > gate.bright[1]) wrong.push("too_bright");
    else {
      if (sharpness(luma, width, height, gate.grey) < gate.least_variance) wrong.push("blurred");
      if (skin / luma.length < gate.least_skin) wrong.push("no_skin");
    }
    return wrong;
  };

  return {
    judge,
    // A file as it is sent (JPEG bytes without any of its metadata), and what is wrong with it. Throws for what is no photo.
    async prepare(file, sizes, gate) {
      const picture = await createImageBitmap(file);
      const sides = [picture.width, picture.height];
      const shrink = Math.min(1, sizes.side / Math.max(...sides));
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = sides.map((side) => Math.max(1, Math.round(side * shrink)));
      const brush = canvas.getContext("2d", { willReadFrequently: true });
      brush.imageSmoothingQuality = "high";
      brush.fillStyle = "#fff";
      brush.fillRect(0, 0, canvas.width, canvas.height);
      brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
      picture.close();
      const wrong = judge(brush.getImageData(0, 0, canvas.width, canvas.height), sides, gate);
      const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", sizes.quality));
      return { bytes: await blob.arrayBuffer(), wrong };
    },
  };
})();
