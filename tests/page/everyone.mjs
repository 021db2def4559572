// The keyboard alone, axe-core, narrow screens, and screenshots in light and dark.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { assert, counts, open, ready, run, start, until } from './harness.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const { browser, context } = await start({ bypassCSP: true });
const page = await ready(await open(context));
const shots = process.env.RETROCAP_SCREENSHOTS;

async function violations(where) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }));
  return found.violations.map((one) => `${where}: ${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join(' | ')}`);
}

await run({
  async the_keyboard_is_enough() {
    await page.keyboard.press('/');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'q');
    await page.keyboard.type('udp');
    await page.keyboard.press('Enter');
    await until('narrowed', async () => { const [shown, all] = await counts(page); return shown < all; });
    await page.locator('#q').fill('');
    await page.keyboard.press('Enter');
    for (let i = 0; i < 40 && (await page.evaluate(() => document.activeElement.id)) !== 'grid'; i += 1) await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'grid', 'the list is reached with Tab');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowDown');
    assert.equal(await page.locator('#grid').getAttribute('aria-activedescendant'), 'row-1');
    await page.keyboard.press('End');
    const [, all] = await counts(page);
    await until('the last row', async () => (await page.locator('#grid').getAttribute('aria-activedescendant')) === `row-${all - 1}`);
    await page.locator(`#row-${all - 1}`).waitFor();
    await page.keyboard.press('Home');
    await page.keyboard.press('Enter');
    await page.locator('#packets .lines li').first().waitFor();
    for (let i = 0; i < 40 && (await page.evaluate(() => document.activeElement.id)) !== 'tab-packets'; i += 1) await page.keyboard.press('Tab');
    await page.keyboard.press('ArrowRight');
    assert.ok(await page.locator('#conversation').isVisible());
    await page.locator('#grid').focus();
    await page.keyboard.press('Escape');
    assert.equal(await page.locator('#session').isVisible(), false);
    await page.locator('#timeline').focus();
    await page.keyboard.press('+');
    await until('the strip zooms', async () => page.url().includes('since='));
    await page.keyboard.press('Home');
    await until('and back', async () => !page.url().includes('since='));
  },

  async axe_finds_nothing_in_light_and_dark() {
    const all = [];
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.evaluate(() => { location.hash = ''; });
      await page.waitForTimeout(600);
      all.push(...await violations(`${colorScheme} sessions`));
      await page.locator('.row').first().click();
      await page.locator('#packets .lines li').first().waitFor();
      if (shots) {
        await page.waitForTimeout(600);
        await page.screenshot({ path: `${shots}/page-${colorScheme}.png` });
      }
      all.push(...await violations(`${colorScheme} packets`));
      for (const tab of ['conversation', 'files', 'about']) {
        await page.locator(`#tab-${tab}`).click();
        await page.waitForTimeout(400);
        all.push(...await violations(`${colorScheme} ${tab}`));
      }
      await page.locator('#close').click();
      for (const tab of ['hunt', 'alerts', 'sessions']) {
        await page.locator(`#tab-${tab}`).click();
        all.push(...await violations(`${colorScheme} ${tab}`));
      }
    }
    assert.deepEqual(all, []);
  },

  async motion_is_reduced_where_that_is_asked_for() {
    const moves = async (reducedMotion) => {
      await page.emulateMedia({ reducedMotion });
      return page.evaluate(() => [...document.querySelectorAll('*')].some((node) => {
        const { transitionDuration, animationName } = getComputedStyle(node);
        return animationName !== 'none' || transitionDuration.split(',').some((one) => parseFloat(one) > 0);
      }));
    };
    assert.equal(await moves('no-preference'), true);
    assert.equal(await moves('reduce'), false);
  },

  async a_narrow_list_shows_who_what_and_how_much_is_kept() {
    await page.setViewportSize({ width: 1280, height: 720 });
    await page.locator('.row').first().click();
    await page.locator('#packets .lines li').first().waitFor();
    const shown = await page.locator('.head > span').evaluateAll((all) => all.filter((one) => one.offsetWidth > 0).map((one) => one.textContent));
    assert.deepEqual(shown, ['First packet', 'Originator', 'Responder', 'Name and words', 'Kept']);
    const over = await page.locator('#grid').evaluate((grid) => grid.scrollWidth - grid.clientWidth);
    assert.ok(over <= 0, `${over} pixels are out of sight`);
    await page.locator('#close').click();
    assert.equal(await page.locator('.head > span').evaluateAll((all) => all.filter((one) => one.offsetWidth > 0).length), 10);
  },

  async it_is_usable_at_400_pixels_and_wide() {
    for (const width of [400, 1280, 2560]) {
      await page.setViewportSize({ width, height: 720 });
      await page.waitForTimeout(300);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(over <= 0, `${width}: ${over} pixels too wide`);
      await page.locator('.row').first().click();
      await page.locator('#packets .lines li').first().waitFor();
      const box = await page.locator('#session').boundingBox();
      assert.ok(box.x >= 0 && box.x + box.width <= width, `${width}: ${JSON.stringify(box)}`);
      if (shots && width === 400) await page.screenshot({ path: `${shots}/page-narrow.png` });
      await page.locator('#close').click();
      assert.deepEqual(await violations(`${width} pixels`), []);
    }
  },

  async nothing_went_wrong() {
    assert.deepEqual(page.wrong, []);
    await browser.close();
  },
});
